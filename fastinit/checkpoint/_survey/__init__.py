"""Surveys: what a safetensors checkpoint holds, read once.

    survey.py      the public function; records.py: the `Survey` and `Tensor` that it returns, as text, JSON and a page
    scan.py        all bytes on worker threads: the moments and a sample of each tensor
    comparison.py  a tensor against the distribution that a plan has for it

May import what `checkpoint` may. Start at `survey.survey`.
"""
