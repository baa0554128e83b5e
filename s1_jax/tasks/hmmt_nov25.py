r"""HMMT November 2025 has 30 problems whose answers are formulas.

problem    A fair coin is tossed four times. What is the probability of exactly two heads?
response   <|im_start|>think ... <|im_start|>answer
           Answer: $\binom{4}{2} / 2^4$<|im_end|>
extracted  $\binom{4}{2} / 2^4$
verdict    gold is \frac{3}{8}: right, by math. "\frac{1}{4}" would be wrong.

Not checked against the data: the hub id `MathArena/hmmt_nov_2025` follows from that of February 2025 and is named by
public harnesses. If it or its columns differ, `--task.path` names another copy.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

HMMT_NOV25 = Benchmark(on_hub("MathArena/hmmt_nov_2025"), lambda config: MATH)
