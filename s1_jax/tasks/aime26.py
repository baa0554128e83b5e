r"""AIME 2026 has 30 problems whose answers are whole numbers from 0 to 999.

problem    What is the remainder when $2^{10}$ is divided by 1000?
response   <|im_start|>think ... <|im_start|>answer
           The remainder is $\boxed{024}$.<|im_end|>
extracted  024
verdict    gold is 24: right, by number. "1024" would be wrong.

Not checked against the data: the hub id `MathArena/aime_2026` and its columns are those that public harnesses read.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

AIME26 = Benchmark(on_hub("MathArena/aime_2026"), lambda config: MATH)
