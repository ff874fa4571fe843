"""Libraries of solvers: minimisation, differential equations, evolution, transport; checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.ecosystem, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(0)


def rosenbrock(x, _=None):
    return jnp.sum(10.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


START = jnp.array([-0.8, 0.6, 0.3])


def test_optimistix_minimise(beside):
    optx = pytest.importorskip("optimistix")

    def program(o):
        solver = optx.OptaxMinimiser(o.adam(5e-2, nesterov=True), rtol=1e-9, atol=1e-9)
        found = optx.minimise(rosenbrock, solver, START, max_steps=25, throw=False)
        return START, found.value, found.stats["num_steps"]

    beside(program)


def test_optimistix_adjoint(beside):
    """The derivative through the whole minimisation."""
    optx = pytest.importorskip("optimistix")

    def program(o):
        def end(x):
            solver = optx.OptaxMinimiser(o.sgd(1e-3, momentum=0.9), rtol=1e-9, atol=1e-9)
            adjoint = optx.RecursiveCheckpointAdjoint()
            how = {"max_steps": 8, "throw": False, "adjoint": adjoint}
            return rosenbrock(optx.minimise(rosenbrock, solver, x, **how).value)

        return rosenbrock(START), *jax.value_and_grad(end)(START)

    beside(program)


@pytest.mark.parametrize("jit", [True, False])
def test_jaxopt_solver(jit, beside):
    jaxopt = pytest.importorskip("jaxopt")

    def program(o):
        tx = o.adamw(o.cosine_decay_schedule(5e-2, 20), weight_decay=1e-4)
        solver = jaxopt.OptaxSolver(rosenbrock, tx, maxiter=6 + 9 * jit, tol=0.0, jit=jit)
        found = solver.run(START)
        return START, found.params, found.state.value, found.state.error

    beside(program)


def test_diffrax_neural_equation(beside):
    diffrax, eqx = pytest.importorskip("diffrax"), pytest.importorskip("equinox")

    times = jnp.linspace(0.0, 1.0, 5)
    target = jnp.stack([jnp.cos(times), -jnp.sin(times)], -1)

    def loss(field):
        terms, how = diffrax.ODETerm(lambda t, y, _: field(y)), diffrax.SaveAt(ts=times)
        solver = diffrax.Tsit5()
        found = diffrax.diffeqsolve(terms, solver, 0.0, 1.0, 0.1, target[0], saveat=how)
        return jnp.mean((found.ys - target) ** 2)

    def program(o):
        field = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, key=jax.random.key(0))
        before = eqx.filter(field, eqx.is_inexact_array)
        tx = o.radam(2e-2)
        state = tx.init(before)

        @eqx.filter_jit
        def step(field, state):
            value, grads = eqx.filter_value_and_grad(loss)(field)
            updates, state = tx.update(grads, state)
            return eqx.apply_updates(field, updates), state, value

        for _ in range(8):
            field, state, value = step(field, state)
        return *map(jax.tree.leaves, (before, eqx.filter(field, eqx.is_inexact_array))), value

    beside(program)


@pytest.mark.parametrize("strategy", ["Open_ES", "PGPE", "GuidedES"])
def test_evosax_strategies(strategy, beside):
    algorithms = pytest.importorskip("evosax.algorithms")

    def program(o):
        how = {"population_size": 8, "solution": START, "optimizer": o.adam(5e-2)}
        es = getattr(algorithms, strategy)(**how)
        params = es.default_params
        state = first = es.init(jax.random.key(0), START, params)
        for key in jax.random.split(jax.random.key(1), 8):
            population, state = es.ask(key, state, params)
            fitness = jax.vmap(rosenbrock)(population)
            state, _ = es.tell(key, population, fitness, state, params)
        return first.mean, state.mean, state.best_fitness

    beside(program)


def test_ott_neural_dual(beside):
    pytest.importorskip("ott")
    from ott.neural.methods import neuraldual
    from ott.neural.networks import icnn, potentials

    points = RNG.normal(size=(6, 2, 8, 2)).astype(np.float32)

    def program(o):
        f = icnn.ICNN(dim_data=2, dim_hidden=[8])
        g = potentials.PotentialMLP(dim_hidden=[8])
        solver = neuraldual.W2NeuralDual(
            2,
            f,
            g,
            o.adam(1e-2, b1=0.5, b2=0.9),
            o.yogi(1e-2),
            num_train_iters=5,
            pos_weights=False,
        )
        before = jax.tree.map(jnp.copy, solver.state_f.params)
        source, goal = ((points[i % 6, j] + j for i in range(100)) for j in range(2))
        more, others = ((points[i % 6, j] + j for i in range(100)) for j in range(2))
        solver(source, goal, more, others)
        return before, solver.state_f.params, solver.state_g.params

    beside(program)


def test_tinygp_hyperparameters(beside, x64):
    tinygp = pytest.importorskip("tinygp")

    x = np.sort(RNG.uniform(0, 4, 16))

    def program(o):
        before = params = {"log_amp": jnp.zeros(()), "log_scale": jnp.zeros(())}
        tx = o.sgd(o.polynomial_schedule(2e-2, 1e-3, 2, 10), momentum=0.8, nesterov=True)
        state = tx.init(params)

        @jax.jit
        def step(params, state):
            def loss(p):
                kernel = jnp.exp(p["log_amp"]) * tinygp.kernels.Matern32(jnp.exp(p["log_scale"]))
                return -tinygp.GaussianProcess(kernel, x, diag=0.01).log_probability(np.sin(x))

            updates, state = tx.update(jax.grad(loss)(params), state)
            return o.apply_updates(params, updates), state

        for _ in range(12):
            params, state = step(params, state)
        return before, params

    beside(program, rtol=1e-7)


def test_orbax_resumes(beside, tmp_path):
    """Save in the middle of a run, go on from what was read: the numbers of the unbroken run."""
    ocp = pytest.importorskip("orbax.checkpoint")

    def program(o):
        tx = o.chain(o.clip_by_global_norm(1.0), o.adamw(5e-2), o.ema(0.5))
        step = jax.jit(lambda p, s: tx.update(jax.grad(rosenbrock)(p), s, p))
        run = {"params": START, "state": tx.init(START)}
        unbroken = []
        with ocp.CheckpointManager(tmp_path / o.__name__) as manager:
            for i in range(8):
                updates, state = step(run["params"], run["state"])
                run = {"params": o.apply_updates(run["params"], updates), "state": state}
                unbroken.append(run["params"])
                if i == 3:
                    manager.save(i, args=ocp.args.StandardSave(run))
            shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, run)
            read = manager.restore(3, args=ocp.args.StandardRestore(shapes))
        for i in range(4, 8):
            updates, state = step(read["params"], read["state"])
            read = {"params": o.apply_updates(read["params"], updates), "state": state}
            np.testing.assert_array_equal(read["params"], unbroken[i])
        return START, run["params"], read["params"]

    beside(program)


def test_flax_msgpack_resumes(beside):
    serialization = pytest.importorskip("flax.serialization")

    def program(o):
        tx = o.apply_if_finite(o.chain(o.adam(5e-2), o.add_decayed_weights(1e-4)), 3)
        step = jax.jit(lambda p, s: tx.update(jax.grad(rosenbrock)(p), s, p))
        params, state = START, tx.init(START)
        for _ in range(4):
            updates, state = step(params, state)
            params = o.apply_updates(params, updates)
            saved = serialization.to_bytes((params, state))
            params, state = serialization.from_bytes((START, tx.init(START)), saved)
        return START, params

    beside(program)
