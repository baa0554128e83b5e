r"""HMMT February 2025 has 30 problems whose answers are formulas.

problem    A right triangle has legs 2 and 6. How far is its right angle from its hypotenuse?
response   <|im_start|>think ... <|im_start|>answer
           The distance is $\boxed{\frac{6}{\sqrt{10}}}$.<|im_end|>
extracted  \frac{6}{\sqrt{10}}
verdict    gold is \frac{3\sqrt{10}}{5}: right, by math. "\frac{3\sqrt{10}}{10}" would be wrong.

Not checked against the data: the hub id `MathArena/hmmt_feb_2025` and its columns are those that public harnesses read.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

HMMT_FEB25 = Benchmark(on_hub("MathArena/hmmt_feb_2025"), lambda config: MATH)
