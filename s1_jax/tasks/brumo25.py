r"""BRUMO 2025 has 30 problems whose answers are numbers and formulas.

problem    A circle is inscribed in a square with sides of length 3. What is the circle's area?
response   <|im_start|>think ... <|im_start|>answer
           The area is $\boxed{2.25\pi}$.<|im_end|>
extracted  2.25\pi
verdict    gold is \frac{9\pi}{4}: right, by math. "9\pi" would be wrong.

Not checked against the data: the hub id `MathArena/brumo_2025` and its columns are those that public harnesses read.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

BRUMO25 = Benchmark(on_hub("MathArena/brumo_2025"), lambda config: MATH)
