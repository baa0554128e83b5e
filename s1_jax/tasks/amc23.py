r"""AMC 2023 has 40 problems of the AMC 12, without their choices; answers are numbers.

problem    A train goes 45 miles in 50 minutes. How many miles does it go in an hour?
response   <|im_start|>think ... <|im_start|>answer
           It goes $\boxed{54 \text{ miles}}$.<|im_end|>
extracted  54 \text{ miles}
verdict    gold is 54.0: right, by number. "37.5" would be wrong.

Not checked against the data: the hub id `math-ai/amc23` and its columns are those that public harnesses read.
"""

from s1_jax.tasks.task import MATH, Benchmark, on_hub

AMC23 = Benchmark(on_hub("math-ai/amc23", "test"), lambda config: MATH)
