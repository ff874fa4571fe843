"""What `--help` says before and after the options of the two large commands."""

COMPARE = (
    """Train every method at a range of learning rates with several seeds, choose each method's
learning rate on validation data, and report test data: a table here, and table.csv,
members.csv, three pictures and report.html in a folder. What the data cannot tell apart is
said to be so.""",
    """examples:
  gradxform compare
  gradxform compare --data breast_cancer --methods sgd,momentum,adam --epochs 30
  gradxform compare --data mine.csv --target price --hidden 128,128 --dropout 0.1 --schedule cosine
  gradxform compare --data images.npz --model cnn --learning-rates 1e-4:1e-1:7 --seeds 10
  gradxform compare --methods adam,lion,mine:clipped     a method of your own, in mine.py:
      def clipped(learning_rate):
          return optax.chain(optax.clip(1.0), optax.adam(learning_rate))
  gradxform compare --data mine.npz --model mymodels:resnet --out runs/resnet
  gradxform compare --out runs/resnet --resume ...    go on after an interruption, or add methods

A run that is interrupted keeps the methods that finished. The exit code is 0, 1 if a
method could not be trained, 2 for a mistake in the data or the options, 130 after Ctrl-C.""",
)

SWEEP = (
    """Train a method at every combination of some numbers, or at numbers drawn at random, many
at once, and report the best: a table here, and members.csv, four pictures and report.html
in a folder. Finished chunks are kept: after an interruption, even a killed process,
--resume goes on where it was.""",
    """examples:
  gradxform sweep --axis learning_rate=1e-4:1e-1:8 --axis b1=0.8,0.9,0.95 --seeds 3
  gradxform sweep --methods adam,nadam --axis l2=0,1e-4,1e-3 \\
    --axis hidden=32,64x64 --axis batch_size=32,64
  gradxform sweep --random 200 --axis learning_rate=1e-5:1 --axis b1=lin:0:0.99 \\
    --rungs 2,6 --chunk 25
  gradxform sweep --schedule cosine --axis learning_rate=1e-3:1e-1:5 \\
    --axis tx.learning_rate.decay_steps=200,400
  gradxform sweep mine.toml --processes 4 --out runs/mine
  gradxform sweep mine.toml --processes 4 --out runs/mine --resume

names: any number of the method (learning_rate, b1, ...; also inside a schedule), l2,
label_smoothing, init_scale, batch_size, epochs, hidden, seed. Whole numbers such as
batch_size are compiled for each value.

mine.toml holds the same options, and the axes in a table:
  data = "digits"
  epochs = 20
  [axes]
  learning_rate = "1e-4:1e-1:8"
  b1 = [0.8, 0.9]

several machines: run the same command on each, with --out in a folder that all share,
--processes N and --process 0, 1, ... N-1.""",
)
