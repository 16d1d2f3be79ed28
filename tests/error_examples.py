"""One error of every class, as it would be raised."""

from simservice import errors

EXAMPLES = [
    errors.InvalidInput("action/0", "holds nan"),
    errors.UnsupportedSpace("observation", "Text"),
    errors.InvalidPolicy("the file is no ONNX model", "export it with torch.onnx.export"),
    errors.ConfigError("no key 'devise'; did you mean 'device'?", key="devise"),
    errors.Unauthenticated("no token was sent"),
    errors.UnknownWorld("pong", ["ping", "cartpole"]),
    errors.UnknownFamily("rsm", ["rssm"]),
    errors.UnknownEnvironment("CartPol-v1", "no such id"),
    errors.MissingDataset("cartpole/random-v0", "/data"),
    errors.UnknownSession("0123456789abcdef"),
    errors.UnknownPoint(7),
    errors.UnknownPolicy("0123456789abcdef" * 4),
    errors.PolicyQuarantined("0123456789abcdef" * 4, "a call took 5 s"),
    errors.SessionClosed("environment"),
    errors.SequenceGap(7, 5),
    errors.NeedsReset([0, 3]),
    errors.ModelRetired("a@1", "a@2"),
    errors.SessionQuarantined("0123456789abcdef", 3),
    errors.SessionFenced("0123456789abcdef"),
    errors.CapacityExhausted(64, 1000, 1024, retry_after_s=1.5),
    errors.QuotaExceeded("lab", "lanes", asked=64, active=1000, limit=1024, retry_after_s=0.25),
    errors.PointsExhausted("bytes", asked=70_000, active=60_000, most=100_000),
    errors.PolicyLimitExceeded(
        "policies being checked", found=9, most=8, remedy="wait for some to end", retry_after_s=0.5
    ),
    errors.RolloutLimitExceeded("steps", asked=9000, most=4096),
    errors.RealStepBudgetExceeded(10, 3000, 3000),
    errors.RealEnvironmentFailed("CartPole-v1", "no answer within 60 s"),
    errors.CorruptCheckpoint("runs/world", "weights.safetensors is missing"),
    errors.StoreUnavailable("redis://nowhere"),
    errors.ServerUnavailable("localhost:1", "connection refused"),
    errors.ReplicaDraining(),
    errors.SessionLost("0123456789abcdef", 60.0, "no answer"),
    errors.PortInUse("0.0.0.0:50051"),
    errors.DeadlineExceeded("no answer within 30 s"),
    errors.InternalError("the tick failed"),
]
