r"""GPQA main has 448 questions of physics, chemistry and biology with four choices each, GPQA diamond's among them.

problem    Which of these has the lowest density at room temperature?

           A) Gold
           B) Water
           C) Helium
           D) Ice
response   <|im_start|>think ... <|im_start|>answer
           **Answer:** C) Helium<|im_end|>
extracted  C
verdict    gold is C: right, by letter. "Answer: B" would be wrong.

Choices are shuffled as in `gpqa_diamond`: a question of both tasks has the same order of choices in both. The data set
is gated. Not checked against the data: its configuration `gpqa_main` is the one that public harnesses read.
"""

from functools import partial

from s1_jax.tasks.gpqa_diamond import problems, rules
from s1_jax.tasks.task import Benchmark

GPQA_MAIN = Benchmark(partial(problems, subset="gpqa_main"), rules)
