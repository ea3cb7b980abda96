"""Bad arguments are refused by a ValueError that names the argument, the value and what is allowed.

`rates.rates` is given every corruption of every array; all other public functions check by the same
few lines, and are given one of each in `test_every_argument`.
"""

import numpy as np
import pytest
from test_every_argument import NET, PAPERS, SIZE_FREE, A, G, P

from nomalib import (
    baselines,
    breakeven,
    channel,
    compression,
    fairness,
    interior_point,
    joint_bound,
    learning,
    matching,
    optimum,
    orthogonal,
    polytope,
    rates,
    schedules,
    water_filling,
)
from nomalib.network import Network, draw_gains, random_assignment

UNEVEN = Network(2, 3, sic_residual=[[0.1, 0.2, 0.3], [0.1, 0.1, 0.1]])
EVERYONE = np.ones((2, 3), bool)
GOOD = {"gains": G, "assignment": A, "power": P}
NAN, INF = float("nan"), float("inf")


def with_value(value):
    def spoil(array):
        array = np.array(array, dtype=float)
        array.flat[-1] = value
        return array

    return spoil


# what spoils an array, and what the error must show
BAD_ARRAY = {
    "NaN": (with_value(NAN), "holds nan"),
    "infinite": (with_value(INF), "holds inf"),
    "negative": (with_value(-1e-9), "holds -1e-09"),
    "huge": (with_value(1e307), r"holds 1e\+307"),
    "complex": (lambda array: array + 0j, r"complex128.*abs\(\)"),
    "masked": (np.ma.masked_array, "masked array"),
    "text": (lambda array: array.astype(str), "dtype"),
    "object": (lambda array: array.astype(object), "object"),
    "ragged": (lambda array: [[1.0], [1.0, 2.0]], "array"),
    "None": (lambda array: None, "dtype"),
    "dates": (lambda array: array.astype("datetime64[s]"), "datetime64"),
    "an axis less": (lambda array: array[..., 0], r"shape \(2,\)"),
    "transposed": (lambda array: array.T, r"shape \(3, 2\)"),
    "a scalar": (lambda array: 1.0, r"shape \(\)"),
    "a user more": (lambda array: np.hstack([array, array[:, :1]]), r"shape \(2, 4\)"),
}
BAD_ASSIGNMENT = {
    "integers": (lambda array: array.astype(int), "int64"),
    "floats": (lambda array: array.astype(float), "float64"),
    "text": (lambda array: array.astype(str), "dtype"),
    "None": (lambda array: None, "dtype"),
    "ragged": (lambda array: [[True], [True, False]], "array"),
    "an axis less": (lambda array: array[..., 0], r"shape \(2,\)"),
    "an axis more": (lambda array: array[None, None], r"shape \(1, 1, 2, 3\)"),
    "transposed": (lambda array: array.T, r"shape \(3, 2\)"),
    "another batch": (lambda array: np.stack([array] * 7), r"shape \(7, 2, 3\)"),
    "nobody": (np.zeros_like, "serves 0 users"),
    "a crowd": (
        np.ones_like,
        "has 3 users on subchannel 0, draw 0; max_users_per_subchannel allows 2",
    ),
}
BAD = [
    pytest.param(name, *case, id=f"{name}: {corruption}")
    for name, table in (("gains", BAD_ARRAY), ("assignment", BAD_ASSIGNMENT), ("power", BAD_ARRAY))
    for corruption, case in table.items()
    if (name, corruption) != ("power", "NaN")  # an infeasible draw
]


@pytest.mark.parametrize("name, spoil, shown", BAD)
def test_a_bad_array_is_named(name, spoil, shown):
    arrays = GOOD | {name: spoil(GOOD[name])}
    with pytest.raises(ValueError, match=rf"(?s)^{name}\b.*{shown}"):
        rates.rates(NET, *arrays.values())


PAIR = G, A
RNG = np.random.default_rng(0)
COUNTS = (-1, NAN, "many", 2.5, [1.0, 2.0], True, 2**31)
FRACTIONS = (0.0, 1.0, NAN, True, "1e-8", None)
# argument, its bad values, and what takes them
OPTIONS = [
    ("n_subchannels", (0, 2.5), lambda value: Network(n_subchannels=value)),
    ("max_users_per_subchannel", (True,), lambda value: Network(max_users_per_subchannel=value)),
    ("max_subchannels_per_user", (-1,), lambda value: Network(max_subchannels_per_user=value)),
    ("power_dbm", (NAN, "43"), lambda value: Network(power_dbm=value)),
    ("noise", (0.0, INF), lambda value: Network(noise=value)),
    ("min_rate", (-0.01, 1e-7, 41.0), lambda value: Network(min_rate=value)),
    ("weights", (-1.0, NAN, 1e10), lambda value: polytope.reduce(NET, *PAIR, [1.0, value, 0.0])),
    ("weights", (-1.0, NAN), lambda value: joint_bound.upper_bound(NET, G, [1.0, value, 0.0])),
    ("weights", (-1.0, NAN), lambda value: schedules.greedy(NET, G, [1.0, value, 0.0])),
    ("weights", (-1.0, NAN), lambda value: matching.paus(NET, *PAIR, weights=[1.0, value, 0.0])),
    ("sic_residual", (1.5, -0.5, NAN), lambda value: Network(sic_residual=value)),
    ("interference_gain", ("both",), lambda value: Network(interference_gain=value)),
    ("fading", ("rician",), lambda value: Network(fading=value)),
    ("n_draws", COUNTS, lambda value: draw_gains(NET, value, RNG)),
    ("n_draws", (-1,), lambda value: random_assignment(NET, RNG, value)),
    ("rng", (0, np.random, np.random.RandomState(0)), lambda value: draw_gains(NET, 3, value)),
    ("rng", (0,), lambda value: random_assignment(NET, value)),
    ("rng", (0,), lambda value: baselines.random_power(NET, A, value)),
    ("tol", FRACTIONS, lambda value: interior_point.allocate(NET, *PAIR, tol=value)),
    ("tol", (0.0,), lambda value: interior_point.trace(NET, *PAIR, tol=value)),
    ("kept", (0.0, 1.0), lambda value: interior_point.trace(NET, *PAIR, kept=value)),
    ("restarts", (-1, 1.5), lambda value: interior_point.allocate(NET, *PAIR, restarts=value)),
    ("tol", (1.0, "1"), lambda value: optimum.allocate(NET, *PAIR, tol=value)),
    ("max_cells", (9, 100.0), lambda value: optimum.allocate(NET, *PAIR, max_cells=value)),
    ("tolerance", (-1, NAN), lambda value: rates.qos_violation(NET, *GOOD.values(), value)),
    ("rule", ("best", None), lambda value: matching.paus(NET, *PAIR, rule=value)),
    ("rule", ("best",), lambda value: matching.swap_matching(NET, *GOOD.values(), value)),
    ("power", (None,), lambda value: matching.swap_matching(NET, *PAIR, value)),
    ("threshold", (1.5, NAN), lambda value: compression.prune(PAPERS, NET, *PAIR, value)),
    ("networks", ([], NET), lambda value: learning.maximise_sum_rate(SIZE_FREE, value)),
    *(
        (name, (0, -1, NAN, 0.5j, True), call)
        for name in ("epochs", "batch_size", "learning_rate")
        for call in (
            lambda value, name=name: learning.imitate(
                PAPERS, NET, G[None], A, P[None], **{name: value}
            ),
            lambda value, name=name: learning.maximise_sum_rate(SIZE_FREE, [NET], **{name: value}),
        )
    ),
]


@pytest.mark.parametrize("at", range(len(OPTIONS)), ids=lambda at: f"{OPTIONS[at][0]}-{at}")
def test_a_bad_option_is_named(at):
    name, values, call = OPTIONS[at]
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name}\b") as raised:
            call(value)
        assert str(value) in str(raised.value)


def give_labels(labels):
    return lambda: learning.imitate(PAPERS, NET, G[None], A, labels)


def split(u):
    return polytope.power(NET, polytope.reduce(NET, *PAIR), u)


# what else is refused: what the error says, and what raises it
REFUSED = {
    r"sic_residual has shape \(10,\)": lambda: Network(sic_residual=np.zeros(10)),
    "weights differs between users .* of a subchannel.*optimum": lambda: water_filling.allocate(
        NET, *PAIR, [1.0, 2.0, 3.0]
    ),
    "min_rate differs between users .* of a subchannel.*optimum": lambda: water_filling.allocate(
        Network(2, 3, 2, 2, min_rate=[0.3, 0.2, 0.1]), *PAIR
    ),
    r"sic_residual differs .*nomalib\.optimum\.allocate": (
        lambda: water_filling.allocate(UNEVEN, G, EVERYONE)
    ),
    "assignment has 5 subchannels for user 0, draw 0; max_subchannels_per_user allows 4": lambda: (
        baselines.equal_power(
            Network(5, 2, max_subchannels_per_user=4), np.arange(10).reshape(5, 2) % 2 == 0
        )
    ),
    "u has shape": lambda: split([[0.5, 0.5]]),
    "u holds -0.5": lambda: split([[1.5, -0.5], [0.0, 0.0]]),
    "u holds inf": lambda: split([[INF, 0.0], [0.0, 0.0]]),
    "u has dtype": lambda: split([["a", "b"]] * 2),
    "gains has leading axes": lambda: interior_point.trace(NET, G[None], A),
    ".*infeasible": lambda: interior_point.trace(NET, 1e-6 * G, A),
    r"labels has shape \(1, 1, 3\)": give_labels(P[None, :1]),
    "labels holds inf": give_labels(P[None] + INF),
    "labels holds -1": give_labels(P[None] - 1.0),
    "labels holds NaN in every draw": give_labels(P[None] + NAN),
    r".*model takes gains of shape \(2, 3\)": lambda: learning.allocate(
        PAPERS, Network(2, 2), np.ones((2, 2)), np.eye(2, dtype=bool)
    ),
    ".*3 users on a subchannel; the model takes 2": lambda: learning.allocate(
        SIZE_FREE, Network(1, 3, 3), np.ones((1, 3)), np.ones((1, 3), bool)
    ),
    "distance_m holds 0.0": lambda: channel.path_loss_db([100.0, 0.0]),
    "outer_m is 40": lambda: channel.draw_distances(3, RNG, 50.0, 40.0),
    "inner_m is -1": lambda: channel.draw_distances(3, RNG, -1.0),
    "density_dbm_hz is 170": lambda: channel.noise_watt(5e6, 170.0),
    "power_gains holds -87.5": lambda: channel.from_power([[-87.5]]),
    "channel has dtype float64": lambda: channel.from_complex([0.5]),
    "gains has shape .1,.; it must have three axes": lambda: channel.complete_draws([1.0]),
    "strong and weak hold 1 and 2": lambda: breakeven.time_shared(1.0, 2.0),
    "strong and weak hold 10 and -3": lambda: breakeven.fixed(10.0, -3.0),
    "share is 1.5": lambda: breakeven.pair_rates(10.0, 1.0, 1.5, 0.0),
    "epsilon is 2": lambda: breakeven.fixed_level(10.0, 1.0, 2.0),
    "alpha is 0": lambda: breakeven.time_shared(10.0, 1.0, 0.0),
    "sharing is 'shared'": lambda: breakeven.adaptive(10.0, 1.0, 1.0, "shared"),
    "alpha is -1": lambda: fairness.optimum(NET, G, -1.0),
    "owed is -1": lambda: fairness.optimum(NET, G, owed=-1.0),
    r"owed is \[1. 2.\]": lambda: fairness.optimum(NET, G, owed=[1.0, 2.0]),
    "tol is 0": lambda: fairness.optimum(NET, G, tol=0.0),
    "weights is": lambda: fairness.optimum(NET, G, weights=[1.0, 0.0, 1.0]),
    r"gains has shape \(1, 2, 3\)": lambda: fairness.optimum(NET, G[None]),
    "gains of user 2 are all 0": lambda: fairness.optimum(NET, np.eye(2, 3)),
    "net has 2 subchannels and 3 users": lambda: orthogonal.whole_subchannels(NET, G),
    ".*16 infeasible draws": lambda: learning.maximise_sum_rate(
        SIZE_FREE, [Network(2, 2, min_rate=40.0)], batch_size=16
    ),
}


@pytest.mark.parametrize("shown", REFUSED)
def test_what_else_is_refused(shown):
    with pytest.raises(ValueError, match=f"^{shown.rstrip()}"):
        REFUSED[shown]()
