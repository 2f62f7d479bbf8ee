"""The part of a reproducer that compares: of an answer, or of cotangents, with what the definition says."""

from __future__ import annotations

from typing import NamedTuple


class Comparison(NamedTuple):
    """What a script says of itself, and its code below the definition; both speak of the $form and the $subject of the call."""

    introduction: str
    code: str


ANSWER = Comparison(
    """This script needs NumPy alone. It holds a problem, what the backend answered in form "$form" (GOT), how far each array of an answer may be from
the truth (ALLOWED), and the layer from its definition. Run it: it computes the definition in float64 and prints the error of each array of GOT;
the exit status is 1 when one is wrong. To check code of your own, put its answer where YOUR CODE is asked for, in main.""",
    '''def main():
    """Print the error of each array; 1 when one is wrong, else 0."""
    answer = GOT  # YOUR CODE: its answer to SPEC, PARAMS, INPUTS, STATE and OPTIONS instead, a dict of arrays with the keys of GOT

    y, state = $subject(SPEC, wide(PARAMS), **wide(INPUTS), state=wide(STATE), **OPTIONS)
    truth = {"y": y} | {f"state.{name}": x for name, x in state.items()}
    shared = [path for path in answer if path in truth and path in ALLOWED]
    if not shared:
        print(f"nothing to compare: the answer has {list(answer)}, the definition {list(truth)}")
        return 1
    wrong = False
    print(f"{'':20}{'error':>12}{'allowed':>12}")
    for path in shared:
        error, verdict = compare(np.asarray(answer[path]), truth[path], ALLOWED[path])
        print(f"{path:20}{error:>12}{ALLOWED[path]:12.3g}  {verdict}")
        wrong = wrong or verdict != "ok"
    return int(wrong)


def wide(arrays):
    """The floating-point arrays in float64."""
    return arrays and {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in arrays.items()}


def compare(got, truth, allowed):
    """The largest error, and "ok" or what is wrong."""
    if got.shape != truth.shape:
        return "shape", f"WRONG: got {got.shape}, expected {truth.shape}"
    errors = np.abs(got.astype(np.float64) - truth)
    largest = np.max(errors, initial=0.0)
    if largest <= allowed:
        return f"{largest:.3g}", "ok"
    place = tuple(map(int, np.unravel_index(np.argmax(errors), errors.shape)))
    return f"{largest:.3g}", f"WRONG, most at {place}: got {got[place]}, expected {truth[place]}"''',
)

COTANGENTS = Comparison(
    """This script needs NumPy alone. It holds a problem, cotangents of its results (BARS), what the backend answered in form "$form" as cotangents of
the arguments for them (GOT), a direction u for each argument (ALONG), how far each sum of cotangent times u may be from the truth (ALLOWED), and
the layer from its definition. Run it: a complex step through the definition, with no automatic differentiation, says how the results move along u;
BARS times that is what the sum must be. It prints both; the exit status is 1 when one is wrong. To check code of your own, put its cotangents
where YOUR CODE is asked for, in main.""",
    '''def main():
    """Print both sums for each argument; 1 when they differ, else 0."""
    cotangents = GOT  # YOUR CODE: its cotangents of PARAMS, INPUTS and STATE for BARS instead, a dict of arrays with the keys of GOT

    arguments = {"spec": SPEC, "params": PARAMS, **INPUTS, "state": STATE, **OPTIONS}
    shared = [path for path in cotangents if path in ALONG]
    if not shared:
        print(f"nothing to compare: the cotangents are of {list(cotangents)}, the arguments are {list(ALONG)}")
        return 1
    wrong = False
    print(f"{'cotangent of':24}{'got':>14}{'expected':>14}{'error':>12}{'allowed':>12}")
    for path in shared:
        cotangent, u = np.asarray(cotangents[path]), ALONG[path]
        if cotangent.shape != u.shape:
            print(f"{path:24}  WRONG: got {cotangent.shape}, expected {u.shape}")
            wrong = True
            continue
        got, expected = np.sum(cotangent.astype(np.float64) * u), slope($subject, arguments, BARS, path, u)
        right = abs(got - expected) <= ALLOWED[path]
        print(f"{path:24}{got:14.6g}{expected:14.6g}{abs(got - expected):12.3g}{ALLOWED[path]:12.3g}  {'ok' if right else 'WRONG'}")
        wrong = wrong or not right
    return int(wrong)''',
)
