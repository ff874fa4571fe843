"""Numbers and names as both reports write them: the same units and digits everywhere."""

import math

SCALES = {True: (100.0, 1), False: (1.0, 3)}  # of an accuracy or anything else: factor, digits


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share, shown in percent."""
    return metric.endswith("accuracy")


def measure(metric: str) -> str:
    """What a metric is called, with its unit: `val_accuracy` is validation accuracy in percent."""
    name = metric.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
    return f"{name},\u00a0%" if is_accuracy(metric) else name


def measured(metric: str, value: float) -> str:
    """A value of a metric in the unit of its name."""
    scale, digits = SCALES[is_accuracy(metric)]
    return fixed(scale * value, digits)


def fixed(value: float, digits: int) -> str:
    """A number with so many digits after the point, a large one with two in all."""
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.2g}"


def spread(mean: float, deviation: float, scale: float, digits: int) -> str:
    """A mean and its standard deviation, where it has one."""
    text = fixed(scale * mean, digits)
    return text if math.isnan(deviation) else f"{text} ± {fixed(scale * deviation, digits)}"


def difference(value: float, margin: float, scale: float, digits: int) -> str:
    """A difference and half of its interval, never left out: `?` where nothing is known."""
    text = fixed(abs(scale * value), digits)
    sign = "" if not float(text) else "−+"[value > 0]
    return f"{sign}{text} ± {'?' if math.isnan(margin) else fixed(scale * margin, digits)}"


def count(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: list[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
