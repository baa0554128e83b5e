r"""AIME 2025 has 30 problems whose answers are whole numbers from 0 to 999.

problem    The angles of a triangle are in the ratio 1:2:3. How many degrees has the largest?
response   <|im_start|>think ... <|im_start|>answer
           Final Answer: $90^\circ$<|im_end|>
extracted  $90^\circ$
verdict    gold is 90: right, by number.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

AIME25 = Benchmark(on_hub("TIGER-Lab/AIME25"), lambda config: MATH)
