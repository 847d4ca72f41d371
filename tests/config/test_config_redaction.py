"""Secrets are redacted wherever they are in a config; values that only look like secrets stay."""

from typing import Any

import pytest

from orbiter.train import TrainConfig
from orbiter_mlflow import config_from_params, config_to_params
from orbiter_mlflow.config.encoding import encode_config

SECRET = "hunter2x9"
WITH: dict[str, Any] = {
    "command line": f"curl -u me:{SECRET} h",
    "arguments": ["curl", "-u", f"me:{SECRET}"],
    "login": ["wandb", "login", f"0123456789{SECRET}"],
    "option": ["x", "--token", SECRET],
    "pairs": [("secret", SECRET)],
    "pair in a dict": {"a": ("x-api-key", SECRET)},
    "lists of two": [["password", SECRET]],
    "deep": [[[("secret", SECRET)]]],
    "name and value": [{"name": "HF_TOKEN", "value": SECRET}],
    "key and value": [{"key": "password", "value": SECRET}],
    "auth": ("me", SECRET),
    "signed address": f"https://x/y?sig={SECRET}&b",
    "userinfo": f"https://u:p@{SECRET}/w@rd@host/x",
    "webhook": f"https://hooks.slack.com/services/T/B/{SECRET}",
    "webhook_url": f"https://a.b/{SECRET}",
    "YAML": f"api_key:\n  {SECRET}\n",
    "XML": f"<password>{SECRET}</password>",
    "netrc": f"machine h login me password {SECRET}",
    "token": f"gsk_AbCd0123{SECRET}",
    "headers": {"Authorization": SECRET, "X-Amz-Signature": SECRET},
    "in a set": {f"api_key={SECRET}"},
    "in a key": {f"token={SECRET}": 1},
    "bytes": f"password={SECRET}".encode(),
}
WITHOUT: dict[str, Any] = {
    "action_token": "<|action|>",
    "tool_token": "<tool>",
    "agent_token": "[AGENT]",
    "observation_token": "obs",
    "additional_special_tokens": ["<a>", "<b>"],
    "columns": ["token", "label"],
    "fields": ["password", "api_key"],
    "command": ["python", "-u", "train.py"],
    "container": ["docker", "run", "-u", "1000:1000"],
    "clone": "git@github.com:a/b.git",
    "clone by ssh": "ssh://git@h/x.git",
    "template": "{% if token %}\n  {{ token }}",
    "stop": ["</tool_call>", "<|im_end|>"],
    "metric": {"name": "accuracy", "value": 3},
}


@pytest.mark.parametrize("what", WITH)
def test_a_secret_is_redacted(what: str) -> None:
    encoded = encode_config(TrainConfig(extra={what: WITH[what]}))
    assert SECRET not in str(encoded)
    assert encoded.redacted


@pytest.mark.parametrize("what", WITHOUT)
def test_a_value_that_is_no_secret_comes_back(what: str) -> None:
    config = TrainConfig(extra={what: WITHOUT[what]})
    assert encode_config(config).redacted == ()
    assert config_from_params(config_to_params(config), TrainConfig) == config
