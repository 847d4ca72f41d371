"""The table of the shapes of secrets: name, prefilter, pattern, example.

A new shape is a new row. A row matches either a secret alone (`hf_...`), or an assignment of a
value to a name (`api_key=...`), which is a secret if the name is. All patterns take linear time: a
possessive quantifier (`++`) reads a run only once, and look-behinds keep a pattern from starting
again inside a run that it has just rejected.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from orbiter_mlflow.redaction.key_names import names_secret_in_url

__all__ = ["SHAPES", "Shape", "shapes_for"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape of a secret.

    Attributes:
        name: the kind of secret.
        prefilter: lower-case strings; a text without any of them is not searched.
        pattern: finds the secret, which is the group `secret` or the whole match; in an assignment,
            finds the name (group `key`) and the operator.
        example: a text with such a secret between `«` and `»`, too short to be a real one.
        value: in an assignment, matches the value after `pattern`; the group `secret` or the whole
            match is the secret.
        names: tells which names are a secret's only in this shape.
        prose: names that stand like this in plain English: `token: the smallest unit of text`.
        in_one_word: the secret has no white space, and neither has what `pattern` looks at.
    """

    name: str
    prefilter: tuple[str, ...]
    pattern: re.Pattern[str]
    example: str
    value: re.Pattern[str] | None = None
    names: Callable[[str], bool] | None = None
    prose: frozenset[str] = frozenset()
    in_one_word: bool = False


def shapes_for(text: str) -> list[Shape]:
    """The shapes that a text may contain, by their prefilters, in the order of the table."""
    lowered = text.lower()
    found = {at for part, at in _PREFILTERS if part in lowered}
    return [SHAPES[at] for at in sorted(found)]


def _alone(
    name: str, prefilter: str, pattern: str, example: str, flags: int = 0, *, word: bool = False
) -> Shape:
    found = re.compile(pattern, flags)
    return Shape(name, tuple(prefilter.split()), found, example, in_one_word=word)


def _token(name: str, prefix: str, rest: str, example: str, prefilter: str = "") -> Shape:
    """A token that begins with the pattern `prefix`, which is the default of the prefilter."""
    pattern = rf"(?<![A-Za-z0-9]){prefix}{rest}"
    return _alone(name, prefilter or prefix.lower(), pattern, example, word=True)


_TOKENS = (
    _token(
        "Hugging Face",
        "hf_",
        r"(?:[A-Za-z0-9]{16,}+|(?=[a-z]{0,16}[A-Z0-9])[A-Za-z0-9]{8,}+)",
        "use «hf_AbCd0123» now",
    ),
    _token("OpenAI, Anthropic and others", "sk-", r"[A-Za-z0-9_-]{16,}+", "«sk-ant-Ab01Cd23Ef45G»"),
    _token(
        "Stripe",
        "[sr]k_(?:live|test)_",
        "[A-Za-z0-9]{8,}+",
        "(«sk_test_Ab01Cd23»)",
        "sk_live_ rk_live_ sk_test_ rk_test_",
    ),
    _token(
        "GitHub",
        "gh[pousr]_",
        "[A-Za-z0-9]{16,}+",
        "id «ghp_a1B2c3D4a1B2c3D4».",
        "ghp_ gho_ ghu_ ghs_ ghr_",
    ),
    _token(
        "GitHub, fine-grained", "github_pat_", "[A-Za-z0-9_]{16,}+", "«github_pat_11ABCDEFG0a1B2c3»"
    ),
    _token(
        "GitLab",
        "gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-",
        "[A-Za-z0-9_.-]{16,}+",
        "«glpat-Ab01Cd23Ef45Gh67»",
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent-",
    ),
    _token("Slack", "xox[abeoprs]-", "[A-Za-z0-9-]{10,}+", "«xoxb-0123456789»", "xox"),
    _token("Slack app", "xapp-", "[A-Za-z0-9-]{10,}+", "«xapp-0-A0123456789»"),
    _token("AWS", "(?:AKIA|ASIA)", "[A-Z0-9]{12,}+", "id «AKIA0123456789AB»", "akia asia"),
    _token("Google API", "AIza", "[A-Za-z0-9_-]{30,}+", "«AIza0123456789012345678901234567890»"),
    _token("Google OAuth", r"ya29\.", "[A-Za-z0-9_.-]{10,}+", "«ya29.a0Ab01Cd23»", "ya29."),
    _token("Google client", "GOCSPX-", "[A-Za-z0-9_-]{10,}+", "«GOCSPX-Ab01Cd23Ef»"),
    _token("npm", "npm_", "[A-Za-z0-9]{30,}+", "«npm_0123456789abcdefghij0123456789»"),
    _token("PyPI", "pypi-", "[A-Za-z0-9_-]{30,}+", "«pypi-0123456789abcdefghij0123456789»"),
    _token(
        "Docker", "dckr_(?:pat|oat)_", "[A-Za-z0-9_-]{16,}+", "«dckr_pat_Ab01Cd23Ef45Gh67»", "dckr_"
    ),
    _token("Databricks", "dapi", "[0-9a-f]{28,}+(?:-[0-9])?", "«dapi0123456789abcdef0123456789ab»"),
    _token("Replicate", "r8_", "[A-Za-z0-9]{30,}+", "«r8_0123456789abcdefghij0123456789»"),
    _token("Groq", "gsk_", "[A-Za-z0-9]{16,}+", "«gsk_Ab01Cd23Ef45Gh67»"),
    _token("xAI", "xai-", "[A-Za-z0-9]{16,}+", "«xai-Ab01Cd23Ef45Gh67»"),
    _token("NVIDIA", "nvapi-", "[A-Za-z0-9_-]{16,}+", "«nvapi-Ab01Cd23Ef45Gh67»"),
    _token(
        "SendGrid",
        r"SG\.",
        "[A-Za-z0-9_-]{8,}+(?:[.][A-Za-z0-9_-]{8,}+)",
        "«SG.Ab01Cd23.Ef45Gh67»",
        "sg.",
    ),
    _token("LangSmith", "lsv2_", "[a-z]{2}_[A-Za-z0-9_]{10,}+", "«lsv2_pt_0123456789»"),
    _token("Perplexity", "pplx-", "[A-Za-z0-9]{16,}+", "«pplx-Ab01Cd23Ef45Gh67»"),
    _token("Tavily", "tvly-", "[A-Za-z0-9-]{10,}+", "«tvly-dev-Ab01Cd23»"),
    _token("Cerebras", "csk-", "[a-z0-9]{16,}+", "«csk-ab01cd23ef45gh67»"),
    _token("Fireworks", "fw_", "(?=[A-Za-z]{0,32}[0-9])[A-Za-z0-9]{16,}+", "«fw_Ab01Cd23Ef45Gh67»"),
    _token("Together", "tgp_v1_", "[A-Za-z0-9_-]{16,}+", "«tgp_v1_Ab01Cd23Ef45Gh67»"),
    _token("Pinecone", "pcsk_", "[A-Za-z0-9_]{16,}+", "«pcsk_Ab01Cd23Ef45Gh67»"),
    _token("Weights & Biases", "wandb_v1_", "[A-Za-z0-9_]{16,}+", "«wandb_v1_Ab01Cd23Ef45Gh67»"),
    _token("Kaggle", "KGAT_", "[A-Za-z0-9]{16,}+", "«KGAT_Ab01Cd23Ef45Gh67»"),
    _token("Neptune", "eyJhcGlf", "[A-Za-z0-9+/=_-]{16,}+", "«eyJhcGlfYWRkcmVzcyI6Imh0»"),
    _token(
        "Vault", r"hv[sbr]\.", "[A-Za-z0-9_-]{16,}+", "«hvs.Ab01Cd23Ef45Gh67»", "hvs. hvb. hvr."
    ),
    _token(
        "Grafana", "gl(?:sa|c)_", "[A-Za-z0-9_+/=]{16,}+", "«glsa_Ab01Cd23Ef45Gh67»", "glsa_ glc_"
    ),
    _token("Sentry", "sntry[su]_", "[A-Za-z0-9_+/=-]{16,}+", "«sntrys_Ab01Cd23Ef45Gh67»", "sntry"),
    _token("DigitalOcean", "do[opr]_v1_", "[0-9a-f]{16,}+", "«dop_v1_0123456789abcdef»", "_v1_"),
    _token("Notion", "ntn_", "[A-Za-z0-9]{16,}+", "«ntn_Ab01Cd23Ef45Gh67»"),
    _token("Linear", "lin_api_", "[A-Za-z0-9]{16,}+", "«lin_api_Ab01Cd23Ef45Gh67»"),
    _token(
        "Doppler",
        r"dp\.(?:pt|st|ct|sa)\.",
        "[A-Za-z0-9_.]{16,}+",
        "«dp.pt.Ab01Cd23Ef45Gh67»",
        "dp.",
    ),
    _token("age", "AGE-SECRET-KEY-1", "[0-9A-Z]{10,}+", "«AGE-SECRET-KEY-1QQQQ0000QQ»"),
    _token(
        "Telegram", "", r"[0-9]{8,10}+:AA[\w-]{20,}+", "«01234567:AAb01Cd23Ef45Gh67Ij89Kl»", ":aa"
    ),
    _alone(
        "JSON web token",
        "eyj",
        r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?",
        "«eyJhbGciOiJI.eyJzdWIiOiIx.Ab01»",
        word=True,
    ),
    _alone(
        "private key",
        "-----begin",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
        "x «-----BEGIN RSA PRIVATE KEY-----\nQQ==\n-----END RSA PRIVATE KEY-----»!",
    ),
)


def _webhook(name: str, prefilter: str, pattern: str, example: str) -> Shape:
    return _alone(name, prefilter, pattern, example, re.IGNORECASE, word=True)


_WEBHOOKS = (
    _webhook(
        "webhook of Slack",
        "hooks.slack",
        r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/(?P<secret>[^\s\"'<>?#]++)",
        "POST https://hooks.slack.com/services/«T00/B00/ab01»",
    ),
    _webhook(
        "webhook of Discord",
        "/webhooks/",
        r"discord(?:app)?\.com/api/(?:v[0-9]{1,2}/)?webhooks/(?P<secret>[^\s\"'<>?#]++)",
        "https://discord.com/api/webhooks/«012/ab01-cd»?wait=true",
    ),
    _webhook(
        "webhook of Teams",
        "webhook.office.com office.com/webhook",
        r"office\.com/webhook(?:b2)?/(?P<secret>[^\s\"'<>?#]++)",
        "https://acme.webhook.office.com/webhookb2/«ab-01@cd/IncomingWebhook/ef/01»",
    ),
    _webhook(
        "webhook of others",  # Zapier, Mattermost and its kin, Feishu, IFTTT, Telegram
        "hooks/ hook/ /key/ /bot",
        r"(?:hooks\.zapier\.com/hooks/catch/|/open-apis/bot/v2/hook/|/with/key/|api\.telegram\.org/bot"
        r"|://[\w.:\-]{1,200}/hooks/)(?P<secret>[^\s\"'<>?#]{8,}+)",
        "https://chat.example/hooks/«ab01cd23»?a=1",
    ),
)

_COMMANDS = (
    _alone(
        "user and password of curl",
        "-u --user --proxy-user",
        r"(?<![\w-])(?:-[uU][ \t]{0,8}+|--(?:proxy-)?user(?:[ \t]{1,8}+|=))[\"']?"
        r"(?P<secret>(?![0-9]++:[0-9]++(?:\s|$))[^\s:\"'/]{1,200}+:(?!//)[^\s\"']++)",
        "curl -u «me:pw» https://host",
    ),
    _alone(
        "password of a command",
        "sshpass redis-cli mysql login",
        r"(?<![\w-])(?:sshpass[ \t]{1,8}+-p[ \t]{0,8}+|redis-cli[ \t][^\n]{0,200}?-a[ \t]{1,8}+"
        r"|mysql(?:dump|admin)?[ \t][^\n]{0,200}?(?<=[ \t])-p"
        r"|login[ \t][^\n]{0,200}?(?<=[ \t])-p[ \t]{1,8}+)(?P<secret>[^\s-]\S*+)",
        "sshpass -p «pw» ssh host",
    ),
    _alone(
        "password in SQL",
        "password passwd identified",
        r"(?<![\w])(?:password|passwd|identified[ \t]{1,8}+by)[ \t]{1,8}+"
        r"(?P<secret>'[^'\n]++'?|\"[^\"\n]++\"?)",
        "ALTER USER me WITH PASSWORD «'pw'»;",
        re.IGNORECASE,
    ),
    _alone(
        "authentication in code",
        "auth(",
        r"(?:Basic|Digest|Proxy)Auth\([ \t\n]{0,40}+(?P<secret>[^()\n]++)",
        "HTTPBasicAuth(«'me', 'pw'»)",
    ),
    _alone(
        "login with a key",
        "login",
        r"(?<![\w-])(?:wandb|swanlab|comet|neptune|huggingface-cli|hf|auth)[ \t]{1,8}+login"
        r"(?:[ \t]++(?:-|(?![^\s]*[0-9]))[^\s]*+){0,8}+[ \t]++(?P<secret>[\w.+/=-]{12,}+)",
        "wandb login --relogin «0123456789abcdef»",
    ),
    _alone(
        "netrc",
        "password",
        r"(?<![\w-])(?:machine|login|account)\s{1,8}+\S++\s{1,8}+password\s{1,8}+(?P<secret>\S++)",
        "machine host login me password «pw»",
    ),
    _alone(
        "bearer token",
        "bearer",
        r"\b(?:Bearer|bearer(?=[ \t]+[^\s]*[0-9])|BEARER)[ \t]++(?P<secret>[^\s\"'\\,]++)",
        "Bearer «ab01»",
    ),
)

# The value is matched only after the name of a secret, so that `note="api_key=x"` does not hide one
# assignment in the value of another.
_KEY = r"(?P<key>[\w.\-]++)"
_VALUE = re.compile(
    r"[bBrRuUfF]{0,2}(?:\"{3}.*?(?:\"{3}|\Z)|'{3}.*?(?:'{3}|\Z)|\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?)"
    r"|\\{1,8}+[\"'].*?\\{1,8}+[\"']"  # JSON in a string in JSON
    r"|[\[{(][^\n]*+"  # a container: a pattern cannot find its end
    r"|[^\s]++",
    re.DOTALL,
)
_IN_QUERY = re.compile(r"[^\s&#\"'<>]++")
_REST_OF_LINE = re.compile(r"[^\s\"'][^\r\n\"']*+")
_TO_END_OF_LINE = re.compile(r"[^\n]++")
_QUOTED_LAST = re.compile(
    r"\\{0,4}(?P<secret>\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|(?<=\\)[\"'][^\"'\n]*+[\"'])"
    r"(?=\s{0,40}(?:[)\]]|,\s{0,8}[^\s\"'\\]))",
    re.DOTALL,
)
_TO_ELEMENT = re.compile(r"(?:<!\[CDATA\[[^\]]*+\]\]>|[^<>\s][^<>]*+)(?=</)")
# The first line after a key, and all lines with the same indentation.
_INDENTED = re.compile(
    r"(?P<indent>[ \t]++)(?P<secret>[^\s#][^\n]*+(?:\n(?:(?P=indent)[^\n]++|[ \t]*+(?=\n)))*+)"
)

# `token: the smallest unit of text` is prose; `token: 8c2f91aa03` is not.
_PROSE = frozenset({"token", "secret", "secrets", "auth", "cookie", "cookies", "credentials"})
_COLUMNS = frozenset({"token", "auth", "cookie"})
"""Names that may be the first of two columns, fields or labels."""


def _assignment(
    name: str,
    prefilter: str,
    pattern: str,
    value: re.Pattern[str],
    example: str,
    *,
    names: Callable[[str], bool] | None = None,
    prose: frozenset[str] = frozenset(),
    flags: int = 0,
) -> Shape:
    found = re.compile(pattern, flags)
    return Shape(name, tuple(prefilter.split()), found, example, value, names, prose)


_ASSIGNMENTS = (
    _assignment(
        "header",
        ": =",
        r"(?<![\w.])(?P<key>(?:[A-Za-z0-9]{1,20}-){0,3}(?:authorization|cookie)2?)"
        r"[ \t]{0,8}+[:=][ \t]{0,8}+",
        _REST_OF_LINE,
        "Authorization: «Basic ab01=»",
        flags=re.IGNORECASE,
    ),
    _assignment(
        "query of a URL",
        "=",
        rf"(?<=[?&;#]){_KEY}=",
        _IN_QUERY,
        "https://h/x?sig=«ab01»&b=1",
        names=names_secret_in_url,
    ),
    _assignment(
        "name and value, listed",
        "value content",
        rf"(?<![\w])(?:name|key|id)[\"']?\s{{0,8}}+[:=]\s{{0,8}}+[\"']?{_KEY}[\"']?\s{{0,8}}+,?"
        r"\s{0,40}+[\"']?(?:value|content)[\"']?\s{0,8}+[:=]\s{0,8}+",
        _VALUE,
        '{"name": "HF_TOKEN", "value": «"ab01"»}',
    ),
    _assignment(
        "assignment with a type",
        ":",
        rf"(?<![\w.\-?&]){_KEY}[ \t]{{0,8}}+:[ \t]{{0,8}}+[\w.\[\]|&<>, ]{{1,100}}?"
        r"=(?![=~])[ \t]{0,8}+",
        _VALUE,
        'api_key: str | None = «"ab01"»',
    ),
    _assignment(
        "line of a file",  # YAML or INI: the value goes to the end of the line
        ": =",
        r"(?m:^)[ \t]{0,200}+(?:[+\-][ \t]{0,200}+)?"
        r"(?!(?:token|secrets?|auth|cookies?|credentials)\b)"
        rf"{_KEY}[ \t]{{0,8}}+[:=][ \t]{{1,8}}+(?=[^\s\"'\[{{(|>])",
        _TO_END_OF_LINE,
        "x: 1\n  db_password: «correct horse»\ny: 2",
    ),
    _assignment(
        "assignment",
        "= :",
        rf"(?<![\w.\-?&]){_KEY}(?:\\{{0,4}}[\"']?\]?[ \t]{{0,8}}+(?:=>|:=|=(?![=~]))[ \t]{{0,8}}+"
        rf"|\\{{0,4}}[\"'][ \t]{{0,8}}+:\s{{0,8}}+)",
        _VALUE,
        "api_key = «'ab01'»",
    ),
    _assignment(
        "environment variable",
        "env set",
        r"(?<![\w\-])(?:ENV|setx|setenv|set[ \t]{1,8}+-[a-zA-Z]{1,8})[ \t]{1,8}+"
        rf"{_KEY}[ \t]{{1,8}}+(?![=:])",
        _VALUE,
        "ENV HF_TOKEN «ab01»",
    ),
    _assignment(
        "option of a command",
        "-",
        r"(?<![\w.\-])(?P<key>--?[\w.\-]++)[ \t]++(?!-)",
        _VALUE,
        "huggingface-cli login --token «ab01»",
    ),
    _assignment(
        "mapping",
        ":",
        rf"(?<![\w.\-?&]){_KEY}[ \t]{{0,8}}+:[ \t]{{1,8}}+(?![>|][+\-0-9]{{0,2}}\s)",
        _VALUE,
        "  db_password: «ab01»",
        prose=_PROSE,
    ),
    _assignment(
        "mapping with its value on the next lines",
        ":",
        r"(?m:^)[ \t]{0,200}+(?:-[ \t]{1,8}+)?[\"']?" + _KEY + r"[\"']?[ \t]{0,8}+:"
        r"[ \t]{0,8}+(?:[>|][+\-0-9]{0,2}[ \t]{0,8}+)?\r?\n",
        _INDENTED,
        "api_key:\n  «ab01»\nx: 1",
        prose=_PROSE,
    ),
    _assignment(
        "pair",
        ",",
        rf"[\[(][ \t\n]{{0,40}}+\\{{0,4}}[\"']{_KEY}\\{{0,4}}[\"'][ \t]{{0,8}}+,\s{{0,40}}+",
        _QUOTED_LAST,
        "users=[('secret', «'pw'»)",
        prose=_COLUMNS,
    ),
    _assignment(
        "element of XML or HTML",
        "<",
        r"<(?:[\w\-]{1,40}:)?" + _KEY + r"(?:\s[^<>]{0,300}+)?>\s{0,40}+",
        _TO_ELEMENT,
        "<password>«ab01»</password>",
        prose=_PROSE,
    ),
)

SHAPES: tuple[Shape, ...] = (*_TOKENS, *_WEBHOOKS, *_COMMANDS, *_ASSIGNMENTS)
"""All shapes, in the order in which they are searched."""

_PREFILTERS = [(part, at) for at, shape in enumerate(SHAPES) for part in shape.prefilter]
