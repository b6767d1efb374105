"""All-pairs parametrisation: every two values of different arguments meet in a case, but not every combination is one.

Most faults need one or two particular values. Four arguments of five values are 625 combinations and some 30 pairs.
"""

import pytest
from allpairspy import AllPairs


def pairs(*, allowed=None, **axes):
    """Parametrise a test by the cases in which every two values of different arguments meet.

    Args:
        allowed: a function of the arguments by name; cases for which it is false are left out, and their pairs of
            values meet in others where that is possible.
        axes: for each argument of the test its values, at least two arguments. The order of the cases is always the
            same.
    """
    names = list(axes)

    def fits(row):
        return len(row) < len(names) or allowed is None or allowed(**dict(zip(names, row, strict=True)))

    # allpairspy compares values by their order in the lists; indices are hashable whatever the values are.
    indices = [range(len(values)) for values in axes.values()]
    rows = AllPairs(indices, filter_func=lambda row: fits([axes[n][i] for n, i in zip(names, row, strict=False)]))
    return pytest.mark.parametrize(names, [[axes[n][i] for n, i in zip(names, row, strict=True)] for row in rows])
