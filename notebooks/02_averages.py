# %% [markdown]
# # 2. Averages: what does β = 0.9 remember?
#
# Momentum, RMSprop and Adam all contain the same line, the *exponentially weighted average*
#
# $$v_t = β\,v_{t-1} + (1-β)\,x_t .$$
#
# It keeps one number and forgets gradually. We run it over the weather, where one can see what it does, and then over
# gradients.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes
from vega_datasets import data as vega

import gradxform as gx
from gradxform import plot

# %% [markdown]
# ## A year of temperatures
#
# The package `vega_datasets` ships the daily weather of Seattle from 2012 to 2015, as the national weather service
# (NOAA) measured it. We take the highest temperature of each day of 2015.

# %%
weather = vega.seattle_weather().set_index("date")
year = weather.loc["2015", "temp_max"].to_numpy(np.float32)
print(
    f"{len(year)} days, from {year.min():.1f} to {year.max():.1f} °C, "
    f"{year.mean():.1f} °C on average"
)


def average(series, beta, debias=False):
    """The exponentially weighted average of a series: an optimizer's part, run over a
    stream.
    """
    tx = gx.ema(beta, debias=debias)

    def step(state, x):
        v, state = tx.update(x, state)
        return state, v

    return np.asarray(
        jax.lax.scan(step, tx.init(jnp.float32(0)), jnp.asarray(series))[1]
    )


def picture(lines, days=slice(None), **options):
    figure = plot.curves(
        lines,
        x=np.arange(len(year))[days],
        xlabel="day of 2015",
        ylabel="temperature, °C",
        **options,
    )
    figure.axes[0].plot(
        np.arange(len(year))[days],
        year[days],
        ".",
        color="0.65",
        markersize=3,
        zorder=1,
    )
    return figure


picture(
    {f"β = {beta}": average(year, beta) for beta in (0.5, 0.9, 0.98)},
    title="Highest temperature of the day (dots)",
)

# %% [markdown]
# `gx.ema` is the same part from which Adam is built; here the "gradients" are temperatures. The larger β, the smoother
# the line, and the *later*: the average with β = 0.98 believes in summer long after it is over. And at the left all
# three start far too cold, since $v_0 = 0$. We look at the three things in turn: how much is remembered, how late it
# is, how it starts.
#
# ## The memory is $1/(1-β)$ long
#
# Written out, $v_t = (1-β)\,(x_t + β x_{t-1} + β^2 x_{t-2} + …)$: the value $k$ days ago has the weight $(1-β)\,β^k$.

# %%
days = np.arange(150)
weights = {f"β = {beta}": (1 - beta) * beta**days for beta in (0.5, 0.9, 0.98)}
figure = plot.curves(
    weights,
    xlabel="days ago",
    ylabel="weight",
    log=True,
    title="Whom does the average listen to?",
)
figure.axes[0].set_ylim(1e-4, 1)
figure

# %%
impulse = np.zeros(150, np.float32)
impulse[0] = 1.0  # one warm day: what is left of it k days later is its weight
assert np.allclose(average(impulse, 0.9), 0.9**days * (1 - 0.9), atol=1e-7)

print(
    "   β    1/(1-β)   weight left after 1/(1-β) days   share of the last 1/(1-β) days"
)
for beta in (0.5, 0.9, 0.98, 0.999):
    memory = round(1 / (1 - beta))
    left = beta**memory
    share = (1 - beta) * np.sum(beta ** np.arange(memory))
    print(f"{beta:5}   {memory:6}   {left:20.3f}   {share:35.0%}")
print(f" 1/e = {np.exp(-1):.3f}")
assert abs(0.999**1000 - np.exp(-1)) < 1e-3

# %% [markdown]
# This is the meaning of "β averages over about the last $1/(1-β)$ values": after so many steps a value's weight has
# fallen to about $1/e$ of what it was (the closer β is to 1, the closer to $1/e$), and two thirds of all the weight, or
# nearly, lie within.
#
# ## Smooth is late
#
# How late is an average? Feed it a straight ramp, one degree warmer each day, and see how far it stays behind.

# %%
ramp = np.arange(1000, dtype=np.float32)
for beta in (0.5, 0.9, 0.98):
    behind = ramp[-1] - average(ramp, beta)[-1]
    print(f"β = {beta:4}: {behind:5.1f} days behind; β/(1-β) = {beta / (1 - beta):.1f}")
    assert np.isclose(behind, beta / (1 - beta), rtol=1e-3)

# %% [markdown]
# And how smooth? Feed it noise without any trend. The average of $N$ values has $1/\sqrt N$ of the noise of one, which
# tells how many values a given β is worth.

# %%
noise = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
for beta in (0.5, 0.9, 0.98):
    worth = 1 / average(noise, beta)[1000:].var()
    print(
        f"β = {beta:4}: as quiet as a plain mean of {worth:5.1f} values; (1+β)/(1-β) "
        f"= {(1 + beta) / (1 - beta):.1f}"
    )
    assert np.isclose(worth, (1 + beta) / (1 - beta), rtol=0.05)

# %% [markdown]
# Both grow like $1/(1-β)$: no β gives silence without delay. The weather shows the same. We compare the yearly wave in
# the average with the one in the temperatures, over the last three of the four years.

# %%
temperatures = weather["temp_max"].to_numpy(np.float32)
wave = np.exp(2j * np.pi * np.arange(3 * 365) / 365)
late, height = {}, {}
for beta in (0.5, 0.9, 0.98):
    ratio = np.sum(average(temperatures, beta)[-3 * 365 :] * wave) / np.sum(
        temperatures[-3 * 365 :] * wave
    )
    late[beta], height[beta] = np.angle(ratio) * 365 / (2 * np.pi), abs(ratio)
    print(
        f"β = {beta:4}: the yearly wave comes {late[beta]:4.1f} days late and is "
        f"{height[beta]:.0%} as high"
    )
assert late[0.98] > 30
assert height[0.98] < 0.8

# %% [markdown]
# With β = 0.98 the average is more than a month late, and a quarter of the difference between summer and winter is
# gone: what changes within $1/(1-β)$ steps, an average takes for noise.
#
# ## The start: bias correction
#
# At $v_0 = 0$ the average has no weather to remember, and remembers zero. After $t$ days the weights of the days so far
# add up to $1-β^t$ and not to 1. So divide by it.

# %%
first = slice(0, 90)
lines = {
    "β = 0.98": average(year, 0.98)[first],
    "β = 0.98, corrected": average(year, 0.98, debias=True)[first],
    "mean of the days so far": (np.cumsum(year) / np.arange(1, len(year) + 1))[first],
}
picture(lines, days=first, title="The first ninety days")

# %%
t = np.arange(1, len(year) + 1)
plain, corrected = average(year, 0.98), average(year, 0.98, debias=True)
assert np.allclose(corrected, plain / (1 - 0.98**t), rtol=1e-4)
assert np.allclose(average(np.full(50, 7.0), 0.98, debias=True), 7.0, rtol=1e-5)
print(
    f"day 1: measured {year[0]:.1f} °C, average {plain[0]:.1f}, corrected "
    f"{corrected[0]:.1f}"
)
for beta in (0.9, 0.98, 0.999):
    print(
        f"β = {beta}: the correction is below 1 % after "
        f"{int(np.ceil(np.log(0.01) / np.log(beta)))} steps"
    )

# %% [markdown]
# The corrected average starts as the plain mean of what it has seen, and on a constant series it is exact from the
# first step. After a few times $1/(1-β)$ steps there is nothing left to correct. With Adam's $β_2 = 0.999$, though,
# that is most of a short training; notebook 5 shows what happens without.
#
# ## The same line over gradients
#
# Mini-batch gradients are a true gradient plus noise, as the weather is a season plus noise. We hold the weights of a
# linear model of the diabetes data (notebook 1) still, draw 20000 batches of 8 patients, and average their gradients.

# %%
x, y = load_diabetes(return_X_y=True, scaled=False)
x, y = ((a - a.mean(0)) / a.std(0) for a in (x, y))
rows = np.random.default_rng(1).integers(len(y), size=(20_000, 8))
errors = -y[rows]  # the residuals at w = 0
# the gradient of the weight of the body mass index
stream = np.mean(errors * x[rows, 2], axis=1)
truth = np.mean(-y * x[:, 2])
steps = 150
averages = {
    f"β = {beta}": average(stream, beta, debias=True)[:steps] for beta in (0.9, 0.99)
}
plot.curves(
    {"batches of 8": stream[:steps], **averages},
    ylabel="gradient",
    target=truth,
    title="One weight's gradient",
)

# %%
quiet = average(stream, 0.9)[1000:]
ratio = stream.std() / quiet.std()
print(
    f"noise of a batch {stream.std():.3f}, of the average {quiet.std():.3f}: "
    f"{ratio:.2f} times less; √19 = {19**0.5:.2f}"
)
assert np.isclose(ratio, np.sqrt(19), rtol=0.05)

# %% [markdown]
# With β = 0.9 a batch of 8 is as quiet as one of 8 × 19, at no cost but the delay. That is half of what momentum is
# for. The delay is the catch: it is harmless while the weights move slowly, and the reason why momentum overshoots when
# they do not (notebook 3).
#
# ## The same line over weights
#
# One can also average the *weights*: let them wander about the minimum, and use their average. `gx.params_ema` adds it
# to any optimizer.

# %%
patients = {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def loss(w, batch, key=None):
    return jnp.mean((batch["x"] @ w - batch["y"]) ** 2) / 2


def train(tx, **options):
    one = lambda key: gx.fit(
        loss,
        tx,
        jnp.zeros(10),
        patients,
        key=key,
        epochs=40,
        batch_size=8,
        validation=patients,
        **options,
    )
    return jax.vmap(one)(jax.random.split(jax.random.key(0), 5)).history["val_loss"]


lowest = float(loss(np.linalg.lstsq(x, y)[0], patients))
wandering = train(gx.sgd(0.05)) - lowest
averaged = (
    train(gx.params_ema(gx.sgd(0.05), 0.995), eval_params=gx.eval_params) - lowest
)
plot.curves(
    {"weights": wandering, "their average, β = 0.995": averaged},
    xlabel="epoch",
    ylabel="loss above the least",
    log=True,
)

# %%
end = [float(jnp.mean(curve[:, -10:])) for curve in (wandering, averaged)]
print("loss above the least in the last ten epochs:")
print(
    f"{end[0]:.4f} for the weights, {end[1]:.4f} for their average: "
    f"{end[0] / end[1]:.0f} times less"
)
assert end[1] < end[0] / 3

# %% [markdown]
# ## What to remember
#
# - $v ← βv + (1-β)x$ remembers about the last $1/(1-β)$ values: 10 for 0.9, 50 for 0.98, 1000 for 0.999.
# - A larger β is quieter and later: $β/(1-β)$ steps behind a trend, as quiet as a mean of $(1+β)/(1-β)$ values.
# - It starts at zero, hence too small; dividing by $1-β^t$ corrects that exactly, and soon is 1.
# - Over gradients it is momentum; over squared gradients it is RMSprop; over weights it is a better point to evaluate.
#
# ## Try
#
# 1. Draw β = 0.7 and β = 0.99 over the year. Which one would you use to tell whether it is summer?
# 2. Start the average at the first temperature in place of 0, without correction (add `year[0]` to what you average of
#    `year - year[0]`). What is still wrong in the first ninety days?
# 3. Give the weights' average β = 0.9 and β = 0.9999. Why are both worse?
