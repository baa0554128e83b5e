r"""MATH500 has the 500 test problems of MATH selected in "Let's verify step by step"; answers are formulas.

problem    What is half of $\frac{2}{3}$? Express your answer as a common fraction.
response   <|im_start|>think ... <|im_start|>answer
           Half of it is $\boxed{\dfrac13}$.<|im_end|>
extracted  \dfrac13
verdict    gold is \frac{1}{3}: right, by math.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

MATH500 = Benchmark(on_hub("simplescaling/openaimath", "test"), lambda config: MATH)
