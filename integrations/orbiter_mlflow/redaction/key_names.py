"""Which keys name a secret: `hf_token`, `apiKey`, `DB_PASSWORD`, but not `max_tokens`.

A name is split into words, and the rules are about words. An unknown `<word>_token` is a secret: a
setting missing from the UI does less harm than a credential in it.
"""

import re
from functools import lru_cache

__all__ = ["is_special_token", "names_secret", "names_secret_in_url"]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ALWAYS = _words(
    """
    accesskey accesskeys accesstoken apikey apikeys apitoken authorization authtoken bearertoken
    cookie cookies hftoken htpasswd passcode privatekey pwd refreshtoken secret secretkey
    secrets sessiontoken
    """
)
_ALWAYS_INSIDE = ("password", "passwd", "passphrase", "credential")
_ALWAYS_AT_THE_END = ("secret", "apikey", "secretkey", "accesskey", "authtoken", "accesstoken")

_LAST = frozenset({"auth", "oauth", "creds", "cred", "jwt", "webhook"})

_LONGEST_REMEMBERED = 250
"""Characters of a name that is cached."""

# Issuers of credentials: `pat` is a secret only after one of these, `key` only after `_BEFORE_KEY`.
_ISSUERS = _words(
    """
    anthropic aws azure cohere comet databricks deepseek fireworks gcp gemini git github gitlab
    google groq hf hub hugging huggingface langchain langsmith mistral mlflow neptune nvidia
    openai openrouter perplexity pinecone replicate serper tavily together wandb
    """
)
_BEFORE_KEY = _ISSUERS | _words(
    """
    access account admin aes api app application auth authentication authorization client
    consumer decryption deploy deployment encryption gpg hmac host licence license master pem
    pgp private rsa secret service session shared signature signing ssh ssl storage subscription
    tls webhook write
    """
)
_BEFORE_PASS = _words(
    """
    admin basic database db ftp git http imap mail mysql pg postgres proxy redis root smtp sql
    ssh sudo user
    """
)
_BEFORE_TOKENS = _ISSUERS | _words(
    """
    access api auth bearer csrf personal refresh session
    """
)

# Tokens of language models. After any other word, `token` is a credential.
_BEFORE_MODEL_TOKEN = _words(
    """
    act action actions added additional answer assistant audio average avg begin beginning blank
    boc bof boi bop bos boundary call calls cls completion context continuous control critic
    critique current decoder delimiter draft dummy each end ending entity env environment eoc eod
    eof eoi eom eop eos eot episode every extra fim final first function functions generated goal
    graph ignore im image img infill infilling initial input instruction label lang language last
    latent mask max mean media mem memory middle min missing modality multi new newline next no
    null num obs observation observations oov output pad padding patch per placeholder plan prefix
    prev previous prompt query rare reasoning reflection register reserved response result results
    return reward role sample scratchpad search seg sentinel sep separator single skill soft sos
    sot space special speech start state step stop subword suffix summary system target task text
    think thinking thought thoughts timestamp tool tools trajectory turn unk unknown utterance
    video virtual vision visual word
    """
)
# Signers of URLs: `X-Amz-Signature`.
_BEFORE_SIGNATURE = frozenset({"amz", "goog", "oss", "cos", "ms", "sas"})
_SIGNATURES = frozenset({"sig", "signature"})

_SPECIAL_TOKEN = re.compile(r"[bru]?[\\\"']*(?:<[^<>\s]{1,60}>|\[/?[A-Z_]{1,30}\])[\\\"'),;}\]]*")
"""`<|action|>`, `</s>`, `[MASK]`, perhaps quoted."""

# Words that may follow the name of a secret.
_TRAILING = frozenset({"value", "string", "text", "plain", "plaintext"})


def names_secret(name: str) -> bool:
    """Whether a value under this name counts as a secret."""
    # Any text may be a "key": the cache must not hold megabytes.
    return _remembered(name) if len(name) <= _LONGEST_REMEMBERED else _judge(name)


def names_secret_in_url(name: str) -> bool:
    """Whether a value under this name is a secret in the query of a URL: `sig`, `signature`."""
    return names_secret(name) or _words_of(name[-_LONGEST_REMEMBERED:])[-1] in _SIGNATURES


def is_special_token(name: str, value: str) -> bool:
    """Whether the value is a special token of a language model, whatever its name."""
    return name.lower().endswith("token") and _SPECIAL_TOKEN.fullmatch(value) is not None


def _words_of(name: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and (words[-1] in _TRAILING or words[-1].isdigit()):
        words.pop()
    return words or [""]


def _judge(name: str) -> bool:
    words = _words_of(name)
    pairs = list(zip(["", *words], words, strict=False))
    return any(_secret_word(before, word) for before, word in pairs) or (
        bool(pairs) and _secret_at_the_end(*pairs[-1])
    )


_remembered = lru_cache(maxsize=4096)(_judge)


def _secret_word(before: str, word: str) -> bool:
    return (
        word in _ALWAYS
        or any(part in word for part in _ALWAYS_INSIDE)
        or word.endswith(_ALWAYS_AT_THE_END)
        or (word in ("key", "keys") and before in _BEFORE_KEY)
        or (word == "tokens" and before in _BEFORE_TOKENS)
        or (word == "signature" and before in _BEFORE_SIGNATURE)
        or (word in ("url", "uri", "urls") and before == "webhook")
    )


def _secret_at_the_end(before: str, word: str) -> bool:
    return (
        word in _LAST
        or (word == "token" and before not in _BEFORE_MODEL_TOKEN)
        or (word == "pass" and before in _BEFORE_PASS)
        or (word == "pat" and before in _ISSUERS)
    )
