"""A figure that belongs to no window and shows itself in a notebook. The one file of the module
that imports matplotlib.
"""

import base64

from matplotlib.figure import Figure

from gradxform.plot.style import png


class Picture(Figure):
    """A matplotlib figure that a notebook shows as the value of a cell, also where pyplot was never
    imported.
    """

    def _repr_mimebundle_(self, include=None, exclude=None):
        """Before any formatter that pyplot registers for figures, which would show it at half the
        resolution.
        """
        dpi = self.get_dpi()
        width, height = self.get_size_inches()
        try:  # twice the pixels, for screens that have them
            size = {"width": round(100 * width), "height": round(100 * height)}
            return {"image/png": base64.b64encode(png(self, 200)).decode()}, {"image/png": size}
        finally:
            self.set_dpi(dpi)
