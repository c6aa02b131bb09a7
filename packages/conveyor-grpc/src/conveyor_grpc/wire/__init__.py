"""The messages and services of `conveyor.control.v1`, generated from `proto/conveyor_grpc/wire/`.

`registry` (services, groups), `sidecar` and `table` (what sidecars report and are told),
`checkpoint` (source positions), `admin` (what operators ask), `errors` (what a refusal carries).
The `.proto` files are the contract and hold its documentation; regenerate with `nox -s proto`.
"""
