"""What a transformation is: calls, trees, schedules, labels, numbers, rules on a leaf, chains. The
files stand in reading order.

call         a call that remembers its arguments
leaves       walking trees
slots        what a rule remembers of a parameter
schedule     a number that depends on the step
transform    what every transformation is
labels       which leaf is which
hyper        what a hyperparameter is
leaf         rules one after another on one leaf
leafwise     the transformation of a rule, and how rules run over a tree
tunable      an optimizer in its own state
chain        compositions
"""

from gradxform.core.call import Call, Value
from gradxform.core.chain import Chain, Named, as_transform
from gradxform.core.labels import ByPath
from gradxform.core.leaf import PerLeaf, Site
from gradxform.core.leafwise import Leafwise
from gradxform.core.schedule import Schedule
from gradxform.core.states import ChainState, RuleState
from gradxform.core.transform import Transform
from gradxform.core.tunable import Tunable, TunableState

__all__ = [
    "ByPath",
    "Call",
    "Chain",
    "ChainState",
    "Leafwise",
    "Named",
    "PerLeaf",
    "RuleState",
    "Schedule",
    "Site",
    "Transform",
    "Tunable",
    "TunableState",
    "Value",
    "as_transform",
]
