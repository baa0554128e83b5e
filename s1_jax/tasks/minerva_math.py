r"""Minerva Math has 272 problems of university physics, astronomy, chemistry and mathematics.

Answers are numbers, often in powers of ten and with a unit, and formulas.

problem    Light takes 500 seconds from the Sun to a planet. How far apart are they, in meters, at 3e8 m/s?
response   <|im_start|>think ... <|im_start|>answer
           The distance is $\boxed{1.5 \times 10^{8} \text{ km}}$.<|im_end|>
extracted  1.5 \times 10^{8} \text{ km}
verdict    gold is 1.5e11 \text{ m}: right, by math. "1.5 \times 10^{8} \text{ m}" would be wrong.

A number must have the gold answer's value: 1.49e11 is not taken for 1.5e11. A unit may be left out.

Not checked against the data: the hub id `math-ai/minervamath` and its columns are those that public harnesses read.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

MINERVA_MATH = Benchmark(on_hub("math-ai/minervamath", "test"), lambda config: MATH)
