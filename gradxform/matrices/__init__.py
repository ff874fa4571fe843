"""A rate for each matrix: which parameters are matrices, how those of one shape run together, and
the equations on one matrix.

presets        what names tell of matrices
declaration    which axes are rows and columns
placement      how matrices of one shape are run
matrixwise     the transformation of a rule on one matrix
lifted         a rule on one array, run on matrices
factored       second moments in less memory
orthogonalize  singular values of 1, or about
muon           Muon's parts: averages, orthogonalisation, how long a step is
lmo            the steepest step within a ball of a norm of one's choice
dion           orthonormal steps of low rank
galore         gradients in a subspace
kron           whitening by factors that are learned
norms          the norm of a matrix under control
spectral       its singular values within a bound
roots          eigendecompositions and powers of symmetric matrices
shampoo        second moments of rows and columns, and their roots
grafting       the steps of one transformation with the lengths of another's
basis          what a basis is
bases          eigenvectors, leading singular vectors, random directions
in_basis       the transformation that runs another one in a basis
growth         how fast the norm of a step may grow
"""

from gradxform.matrices.bases import *
from gradxform.matrices.declaration import *
from gradxform.matrices.dion import *
from gradxform.matrices.factored import *
from gradxform.matrices.galore import *
from gradxform.matrices.grafting import *
from gradxform.matrices.growth import *
from gradxform.matrices.in_basis import *
from gradxform.matrices.kron import *
from gradxform.matrices.lmo import *
from gradxform.matrices.muon import *
from gradxform.matrices.norms import *
from gradxform.matrices.orthogonalize import *
from gradxform.matrices.placement import *
from gradxform.matrices.shampoo import *
from gradxform.matrices.spectral import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
