"""Secrets are found by name and by shape, in linear time; what is none stays as it was."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbiter_mlflow.redact import REDACTED, Redactor

redactor = Redactor()
NAMES_OF_SECRETS = """
    password PASSWORD db_password dbPassword PGPASSWORD passwd passphrase pwd secret secrets
    client_secret clientSecret clientsecret credential credentials aws_credentials authorization
    cookie cookies set-cookie apikey api_key api-key api.key apiKey APIKey OPENAI_API_KEY
    api_keys openai_key access_key accessKeyId secret_key private_key privateKey ssh_key
    encryption_key signing_key account_key auth_key service_key auth http_auth basicAuth oauth2
    token hf_token hfToken HFToken HF_TOKEN my_service_token wandb_token bearer_token id_token
    bot_token token1 hf_token_2 token_value api_tokens refresh_tokens smtp_pass db_pass
    github_pat --hf-token
"""
NAMES_OF_NO_SECRETS = """
    tokenizer_name tokenizer tokens max_tokens maxTokens max_new_tokens num_memory_tokens
    pad_token padToken eos_token bos_token unk_token mask_token cls_token sep_token image_token
    video_token audio_token stop_token start_token end_token special_token think_token
    next_token first_token last_token new_token prompt_token loss_per_token pad_token_id
    eos_token_id token_type_ids tokens_per_second primary_key sort_key label_key foreign_key
    public_key key keys author authors authority first_pass num_passes bypass compass pattern
    path learning_rate epochs session monkey turkey keyboard secretary cookiecutter
"""
FAKE_HF = "hf_" + "AbCd0123" * 4
FAKE_SK = "sk-" + "proj-Ab01" * 4
FAKE_GH = "ghp_" + "a1B2c3D4" * 5
FAKE_AWS = "AKIA" + "ABCDEFGH12345678"


@pytest.mark.parametrize("key", NAMES_OF_SECRETS.split())
def test_names_of_secrets(key: str) -> None:
    assert redactor.is_secret_key(key)


@pytest.mark.parametrize("key", NAMES_OF_NO_SECRETS.split())
def test_names_of_no_secrets(key: str) -> None:
    assert not redactor.is_secret_key(key)


def test_more_names_can_be_given_as_globs_without_regard_to_case() -> None:
    mine = Redactor(("internal_*", "*seed?"))
    assert mine.is_secret_key("Internal_Host")
    assert mine.is_secret_key("SEED1")
    assert not mine.is_secret_key("seed")
    assert mine.text("--internal-x y internal_host=z") == f"--internal-x y internal_host={REDACTED}"
    assert mine.is_secret_key("api_key")


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("https://bob:hunter2@host/x", "https://[redacted]@host/x"),
        ("git clone https://token@host/x.git", "git clone https://[redacted]@host/x.git"),
        (
            "a postgres://u:p@h/d, b redis://:p@h:1",
            "a postgres://[redacted]@h/d, b redis://[redacted]@h:1",
        ),
        ("mysql+pymysql://u:p@ss@h/d", "mysql+pymysql://[redacted]@h/d"),
        ("postgres://u:pa/ss@h/d", "postgres://[redacted]@h/d"),
        ("https:/bob:hunter2@host", "https:/[redacted]@host"),
        ("HTTPS://BOB:X@HOST", "HTTPS://[redacted]@HOST"),
    ],
)
def test_userinfo_of_urls(text: str, visible: str) -> None:
    assert redactor.url(text) == visible
    assert redactor.text(text) == visible


@pytest.mark.parametrize(
    "text",
    [
        "https://host/x",
        "http://host:8080/@scope/package",
        "https://medium.com/@someone",
        "ssh://git@github.com/org/repo",
        "git@github.com:org/repo.git",
        "models:/my-model@champion",
        "hf://datasets/org/name@main/file",
        "mail me at bob@example.com",
        "/data/a:b/c@d",
        "use_auth_token=True",
        "api_key=None, token=null",
        "pad_token=<pad> max_tokens=512",
        "--max-tokens 5 --tokenizer-name gpt2",
        "Next token: the most likely one",
        "password == other",
        "learning_rate=1e-5",
        "risk-averse-exploration-strategy",
        "hf_transformers",
        "sk-learn",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redactor.text(text) == text


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("train --hf-token VALUE --x 1", f"train --hf-token {REDACTED} --x 1"),
        ("train --api-key=VALUE --x", f"train --api-key={REDACTED} --x"),
        ("train --use-auth --api-key VALUE", f"train --use-auth --api-key {REDACTED}"),
        ("api_key=VALUE x", f"api_key={REDACTED} x"),
        ("API_KEY = 'VALUE and more' x", f"API_KEY = {REDACTED} x"),
        ('{"password": "VALUE \\" VALUE", "a": 1}', f'{{"password": {REDACTED}, "a": 1}}'),
        ("{'hf_token': 'VALUE', 'a': 1}", f"{{'hf_token': {REDACTED}, 'a': 1}}"),
        (r'"{\"password\": \"VALUE\", \"a\": 1}"', rf'"{{\"password\": {REDACTED}, \"a\": 1}}"'),
        ('note="api_key=VALUE"', f'note="api_key={REDACTED}'),
        ("Client(token='VALUE', x=1)", f"Client(token={REDACTED}, x=1)"),
        ("Client(password=b'VALUE', x=1)", f"Client(password={REDACTED}, x=1)"),
        ('password = """VALUE\nVALUE""" x', f"password = {REDACTED} x"),
        ("https://h/?token=VALUE&b=1", f"https://h/?token={REDACTED}&b=1"),
        ("Bearer VALUE", f"Bearer {REDACTED}"),
        ("Authorization: Basic VALUE=", f"Authorization: {REDACTED}"),
        ('curl -H "Authorization: Bearer VALUE" u', f'curl -H "Authorization: {REDACTED}" u'),
        ("Cookie: a=VALUE; b=VALUE\nx", f"Cookie: {REDACTED}\nx"),
        ("X-Api-Key: VALUE", f"X-Api-Key: {REDACTED}"),
        ("  db_password: VALUE\n  x: 1", f"  db_password: {REDACTED}\n  x: 1"),
        ("+password: VALUE", f"+password: {REDACTED}"),
        ("token: 9f8VALUE7", f"token: {REDACTED}"),
        ('{"credentials": {"user": "VALUE"}}', f'{{"credentials": {REDACTED}'),
        (f"use {FAKE_HF}.", f"use {REDACTED}."),
        (f"use {FAKE_SK} now", f"use {REDACTED} now"),
        (f"({FAKE_GH})", f"({REDACTED})"),
        (f"id {FAKE_AWS}", f"id {REDACTED}"),
        ("-----BEGIN RSA PRIVATE KEY-----\nVALUE\n-----END RSA PRIVATE KEY-----!", f"{REDACTED}!"),
        ("-----BEGIN PRIVATE KEY-----\nVALUE", REDACTED),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.VALUE", REDACTED),
    ],
)
def test_secrets_in_texts(text: str, visible: str) -> None:
    assert redactor.text(text) == visible


@given(st.text("ab1 =:@/\\\"'-_.{[&?\nBearer tokn api_key password", max_size=60))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_redaction_is_final(text: str) -> None:
    once = redactor.text(text)
    assert redactor.text(once) == once


@given(
    st.sampled_from(
        [
            "https://u:%s@h",
            "--api-key %s",
            "api_key=%s",
            '"password": "%s"',
            "Bearer %s",
            "x_token='%s'",
        ]
    ),
    st.text("abcXYZ019", min_size=6, max_size=12),
    st.text("xyz ,;\n", max_size=8),
)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_the_secret_itself_never_shows(form: str, secret: str, around: str) -> None:
    assert secret not in redactor.text(f"{around} {form % secret} {around}")


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "-",
            "--",
            " ",
            "\t",
            "\\",
            "=",
            '"',
            "'",
            "{",
            ":/",
            "://",
            "://a:b",
            "://a:b@",
            ":////",
        ),
        *("k='", 'k=\\"', "api_key='", 'api_key=\\"', "api_key=\\", "api_key        ", "&token="),
        *("eyJ", "eyJ-", "eyJaaaaaaaa.", "sk-", "hf_", "hf_a", "AKIA", "password:", "--a ", "a-"),
        *("-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "authorization", "a1-cookie", "Bearer "),
        *("bearer\t", "\n- password:", "é=", "aB", 'password="""'),
    ],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    text = "password=" + unit * (100_000 // len(unit))
    started = time.process_time()
    redactor.text(text)
    redactor.text(text[9:])
    assert time.process_time() - started < 2  # a quadratic pattern takes many minutes


def test_a_megabyte_of_everything_takes_linear_time() -> None:
    text = "://a:b api_key='x\\\"eyJ-a password: --token\t" * 25_000
    started = time.process_time()
    redactor.text(text)
    assert time.process_time() - started < 5
