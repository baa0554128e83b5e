r"""HMMT February 2026 has 33 problems whose answers are formulas.

problem    For which real numbers $x$ is $x^4 - 6x^2 + 7 = 0$, if $x > 2$?
response   <|im_start|>think ... <|im_start|>answer
           So $x$ is $\boxed{(3+\sqrt{2})^{1/2}}$.<|im_end|>
extracted  (3+\sqrt{2})^{1/2}
verdict    gold is \sqrt{3+\sqrt{2}}: right, by math. "\sqrt{3-\sqrt{2}}" would be wrong.

Not checked against the data: the hub id `MathArena/hmmt_feb_2026`, its columns and its number of problems are those of
public harnesses.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

HMMT_FEB26 = Benchmark(on_hub("MathArena/hmmt_feb_2026"), lambda config: MATH)
