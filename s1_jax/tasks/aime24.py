r"""AIME 2024 has 30 problems whose answers are whole numbers from 0 to 999.

problem    How many whole numbers from 1 to 100 have a digit sum of 9?
response   <|im_start|>think ... <|im_start|>answer
           There are $\boxed{10}$ of them.<|im_end|>
extracted  10
verdict    gold is 010: right, by number. Two whole numbers are compared as numbers; math-verify is not asked.

s1 published two versions: without the code of the figures (`aime24`, which the paper reports) and with it.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

AIME24 = Benchmark(on_hub("simplescaling/aime24_nofigures"), lambda config: MATH)
AIME24_FIGURES = Benchmark(on_hub("simplescaling/aime24_figures"), lambda config: MATH)
