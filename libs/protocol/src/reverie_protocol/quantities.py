"""Units of the values that our own services report, as schema annotations.

The bounds of a reported value are documentation: decoding does not enforce them, because a reader that refuses a
fraction of 1.0000000002 would lose an event over nothing.  Values that clients send are bounded strictly where
they are declared.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

NOT_NEGATIVE = {"minimum": 0}

Fraction = Annotated[
    float, Meta(description="fraction from 0 to 1", extra_json_schema={"minimum": 0, "maximum": 1})
]
Count = Annotated[int, Meta(description="a count", extra_json_schema=NOT_NEGATIVE)]
Duration = Annotated[float, Meta(description="seconds", extra_json_schema=NOT_NEGATIVE)]
Gigabytes = Annotated[float, Meta(description="GB", extra_json_schema=NOT_NEGATIVE)]
Percent = Annotated[float, Meta(description="percent", extra_json_schema={"minimum": 0, "maximum": 100})]
Pixels = Annotated[int, Meta(description="pixels", extra_json_schema=NOT_NEGATIVE)]
Bytes = Annotated[int, Meta(description="bytes", extra_json_schema=NOT_NEGATIVE)]
Attempt = Annotated[
    int, Meta(description="counts the claims of the job, from 1", extra_json_schema=NOT_NEGATIVE)
]
StepIndex = Annotated[int, Meta(description="denoising steps done", extra_json_schema=NOT_NEGATIVE)]
StepCount = Annotated[int, Meta(description="denoising steps in all", extra_json_schema=NOT_NEGATIVE)]
Seq = Annotated[
    int,
    Meta(
        description="position in the event log of all jobs; the highest of job:state, job:complete and job:error "
        "that was seen is the cursor to resume from",
        extra_json_schema=NOT_NEGATIVE,
    ),
]
JobSeq = Annotated[
    int,
    Meta(description="position among the events of this job", extra_json_schema=NOT_NEGATIVE),
]
Epoch = Annotated[
    str,
    Meta(
        max_length=100,
        description="identity of the event log; a cursor of another epoch cannot be resumed",
    ),
]
