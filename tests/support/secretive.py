"""A config with a secret in every possible place, and each secret by its path."""

from pathlib import Path
from typing import Any

from configs import Client, Login, Secretive

S = "hunter2-5f1c9e"
TOKEN = "hf_" + "AbCd0123" * 4
SECRETIVE = Secretive(
    output_dir=f"s3://user:{S}@bucket/x",
    hf_token=S,
    client=Client(api_key=S),
    clients=[Client(f"https://u:{S}@h"), Client(), Client(api_key=S)],
    login=Login("bob", S),
    secrets={"deep": {"x": (1, Path("/y"))}},
    headers={"Authorization": f"Bearer {S}", "X-Ok": "yes"},
    extra={
        "list": [{"password": S}, {"a": ({"api_key": S}, 2.0)}],
        "argv": ("--lr", "1", "--api-key", S),
        "pairs": {1: TOKEN, 2: TOKEN[::-1], (3, 4): f"x {TOKEN}", "db_password": S, 5: [TOKEN]},
        "odd.key": {"token": [1, None]},
        "bytes": [f"password={S}".encode(), b"ok"],
        "path": {"data": [Path(f"https://u:{S}@h/x")]},
        "by_key": {TOKEN: 1, "ok": 2},
        "key_pairs": {TOKEN: 1, 2: (1,)},
        "prompt": f'You call the API with "api_key": "{S}", and then\nyou wait.',
        "login": Login("bob", S),
    },
)
extra = SECRETIVE.extra
SECRETS: dict[str, Any] = {
    "output_dir": SECRETIVE.output_dir,
    "hf_token": S,
    "client.api_key": S,
    "clients[0].url": SECRETIVE.clients[0].url,
    "clients[2].api_key": S,
    "login.password": S,
    "secrets": SECRETIVE.secrets,
    "headers.Authorization": SECRETIVE.headers["Authorization"],
    "extra.list[0].password": S,
    "extra.list[1].a[0].api_key": S,
    "extra.argv[3]": S,
    "extra.pairs[1]": TOKEN,
    'extra.pairs[{"$tuple":[3,4]}]': f"x {TOKEN}",
    "extra.pairs.db_password": S,
    "extra.pairs[5][0]": TOKEN,
    "extra.odd.key.token": [1, None],
    "extra.bytes[0]": extra["bytes"][0],
    "extra.path.data[0]": extra["path"]["data"][0],
    "extra.by_key": extra["by_key"],
    "extra.key_pairs": extra["key_pairs"],
    "extra.prompt": extra["prompt"],
    "extra.login.password": S,
}
