"""What a transformation is: calls, trees, schedules, labels, numbers, rules on a leaf, chains. The
files stand in reading order.

call         a call that remembers its arguments
leaves       walking trees
slots        what a rule remembers of a parameter
states       what a rule and a chain remember
schedule     a number that depends on the step
labels       which leaf is which
frozen       the leaves that cannot be optimized
transform    what every transformation is
hyper        what a hyperparameter is
leaf         rules one after another on one leaf
leafwise     the transformation of a rule, and how rules run over a tree
tunable      an optimizer in its own state
chain        compositions
inject       the arguments of a function that builds an optimizer, in its state

`from gradxform.core import ...` gives the words that a rule and its constructor are written in.
"""

from gradxform.core.call import Call, Value
from gradxform.core.chain import *
from gradxform.core.hyper import *
from gradxform.core.inject import Injected, InjectStatefulHyperparamsState, inject_hyperparams
from gradxform.core.labels import *
from gradxform.core.leaf import PerLeaf, Site
from gradxform.core.leafwise import Leafwise, leafwise
from gradxform.core.leaves import global_norm
from gradxform.core.schedule import *
from gradxform.core.slots import *
from gradxform.core.states import ChainState, RuleState
from gradxform.core.transform import Transform
from gradxform.core.tunable import Tunable, TunableState, tunable

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
