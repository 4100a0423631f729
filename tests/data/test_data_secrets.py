"""Secrets and personal data: what is replaced, what stays, and that a second time changes nothing."""

import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.config.data_rules import SecretSettings
from tritwise.data.rules.keys import bits_per_byte
from tritwise.data.rules.secrets import redact

# No real key stands here: each is put together from a prefix and letters that count up.
BODY = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0eF" * 8
HEX = "0123456789abcdef" * 8
CAPITALS = "QWERTYUIOPASDFGH" * 4
TOKENS = {
    "aws_key_id": "AKIA" + CAPITALS[:16], "github_token": "ghp_" + BODY[:36], "gitlab_token": "glpat-" + BODY[:20],
    "slack_token": "xoxb-" + "123456789012-" + BODY[:24], "google_key": "AIza" + BODY[:35],
    "slack_webhook": "hooks.slack.com/services/T" + CAPITALS[:8] + "/B" + CAPITALS[:8] + "/" + BODY[:24],
    "google_token": "ya29." + BODY[:40], "google_secret": "GOCSPX-" + BODY[:28],
    "stripe_key": "sk_live_" + BODY[:24], "anthropic_key": "sk-ant-" + "api03-" + BODY[:93],
    "openai_key": "sk-" + BODY[:48], "hugging_face_token": "hf_" + BODY[:34], "npm_token": "npm_" + BODY[:36],
    "pypi_token": "pypi-AgE" + BODY[:60], "json_web_token": ".".join(("eyJ" + BODY[:30], "eyJ" + BODY[:40], BODY[:43])),
    "sendgrid_key": "SG." + BODY[:22] + "." + BODY[:43], "twilio_key": "SK" + HEX[:32],
    "digitalocean_token": "dop_v1_" + HEX[:64], "shopify_token": "shpat_" + HEX[:32], "mailgun_key": "key-" + HEX[:32],
    "telegram_token": "123456789:AA" + BODY[:33], "azure_key": "AccountKey=" + BODY[:86] + "==",
    "databricks_token": "dapi" + HEX[:32], "vault_token": "hvs." + BODY[:24], "docker_token": "dckr_pat_" + BODY[:27],
    "linear_key": "lin_api_" + BODY[:40], "postman_key": "PMAK-" + HEX[:24] + "-" + HEX[:34],
    "age_key": "AGE-SECRET-KEY-1" + CAPITALS[:58],
}
PEM = ("-----BEGIN RSA PRIVATE KEY-----\n" + "".join(f"{BODY[i:i + 64]}\n" for i in range(0, 192, 64)) + "Zm9v\n"
       + "-----END RSA PRIVATE KEY-----\n")


@pytest.mark.parametrize(("rule", "token"), TOKENS.items())
@pytest.mark.parametrize("around", ['x = "{}"\n', "curl -H {} \n", "é {}", "{}", "// {}\n", "(user:{}, 1)"])
def test_each_known_token_is_replaced_wherever_it_stands(rule, token, around):
    text, counts = redact(around.format(token))
    assert counts == {rule: 1}
    assert "<KEY>" in text
    assert token[-12:] not in text


@pytest.mark.parametrize("token", [
    "AKIA" + CAPITALS[:15], "ghp_" + BODY[:35], "xAKIA" + CAPITALS[:16], "hf_" + BODY[:33], "sk-" + BODY[:47],
    "SK" + HEX[:31], "some_npm_" + BODY[:36], "eyJ" + BODY[:30],
])
def test_what_is_too_short_or_part_of_a_longer_word_stays(token):
    assert redact(f'x = "{token}"\n') == (f'x = "{token}"\n', {})


def test_a_private_key_loses_its_body_and_keeps_its_lines():
    text, counts = redact(f"before\n{PEM}after\n")
    assert text == ("before\n-----BEGIN RSA PRIVATE KEY-----\n<KEY>\n<KEY>\n<KEY>\n<KEY>\n"
                    "-----END RSA PRIVATE KEY-----\nafter\n")
    assert counts == {"private_key": 4}


def test_a_private_key_in_a_string_stays_a_string():
    escaped = 'key = "' + PEM.replace("\n", "\\n") + '"\n'
    text, _ = redact(escaped)
    assert text == ('key = "-----BEGIN RSA PRIVATE KEY-----\\n<KEY>\\n<KEY>\\n<KEY>\\n<KEY>\\n'
                    '-----END RSA PRIVATE KEY-----\\n"\n')
    compile(text, "x", "exec")


def test_public_keys_and_certificates_stay():
    for kind in ("PUBLIC KEY", "CERTIFICATE", "RSA PUBLIC KEY"):
        text = PEM.replace("RSA PRIVATE KEY", kind)
        assert redact(text) == (text, {})


def test_a_private_key_without_an_end_loses_its_long_lines_only():
    text, counts = redact(PEM.partition("-----END")[0] + "\nimport everything_else_that_follows_here\n")
    assert counts == {"private_key": 3}
    assert text.endswith("Zm9v\n\nimport everything_else_that_follows_here\n")


@pytest.mark.parametrize(("before", "after", "rule"), [
    ('password = "hunter2horse"', 'password = "<PASSWORD>"', "password"),
    ("PASSWD='tr0ub4dor&3'", "PASSWD='<PASSWORD>'", "password"),
    ('{"db_password": "s3cr3t-4you"}', '{"db_password": "<PASSWORD>"}', "password"),
    ('config["pwd"] = "qu1ckbr0wnf0x"', 'config["pwd"] = "<PASSWORD>"', "password"),
    ('password: str = "qu1ckbr0wnf0x"', 'password: str = "<PASSWORD>"', "password"),
    ('if (password == "qu1ckbr0wnf0x")', 'if (password == "<PASSWORD>")', "password"),
    ('connect(pass="qu1ckbr0wnf0x")', 'connect(pass="<PASSWORD>")', "password"),
    (f'API_KEY = "{BODY[:20]}"', 'API_KEY = "<KEY>"', "assigned_key"),
    (f'apiKey: "{HEX[:32]}"', 'apiKey: "<KEY>"', "assigned_key"),
    (f"'client_secret' => '{BODY[:24]}'", "'client_secret' => '<KEY>'", "assigned_key"),
    (f'auth_token := "{BODY[:24]}"', 'auth_token := "<KEY>"', "assigned_key"),
    (f"aws_secret_access_key = '{BODY[:40]}'", "aws_secret_access_key = '<KEY>'", "assigned_key"),
    (f"SECRET_KEY={BODY[:40]}\n", "SECRET_KEY=<KEY>\n", "assigned_key"),
    (f"access_key: {BODY[:20]}", "access_key: <KEY>", "assigned_key"),
    ("postgres://app:pa55word1@db.internal/x", "postgres://app:<PASSWORD>@db.internal/x", "url_password"),
    ("redis://:pa55word1@10.0.0.1:6379", "redis://:<PASSWORD>@10.0.0.1:6379", "url_password"),
])
def test_a_literal_that_is_assigned_to_a_telling_name_is_replaced(before, after, rule):
    assert redact(before) == (after, {rule: 1})


@pytest.mark.parametrize("text", [
    'password = "password"', 'password = getpass("p4ssword: ")', 'password = os.environ["DB_PASSWORD_1"]',
    'password = "<your-password-1>"', 'password = "${DB_PASSWORD_1}"', 'password = "changeme123"',
    'token = "authorization"', 'token_type = "access_token_type_two"', 'secret_name = "projects/my-app/secret"',
    'password_field_name = "confirm_password"', "    pass\n", "passed = 'version1.2.3.4'", "compass = 'n0rthwest12'",
    'api_key_header = "X-Api-Key-Header-Name"', "token = tokens[i].value_of_2nd_3rd", "sort_key = 'column_12_and_34_x'",
    "http://user:password@host/", "https://user:{password1}@host/", f"sha256 = '{HEX[:64]}'",
    "see :pass :data:`h11.CLIENT`", 'publicKeyToken="1fc8b3b9a1e18e3b"', "gist://username:TOKEN@id/file",
    "git://[path-to-repo[:]][ref1@]path", "TOKEN=$(cat /run/secrets/t0ken1234567890)", "key = 'abc123def456ghi789jkl'",
])
def test_names_samples_and_references_stay(text):
    assert redact(text) == (text, {})


@pytest.mark.parametrize("text", [
    "jane.doe@company.com", "Jane Doe <jane+git@sub.uni-x.edu>", "JANE@COMPANY.ORG", "mailto:jane@company.co.uk",
    "'jane_doe@web.de'", "jane@company.com.", "# contact: jane@company.com, or",
])
def test_mail_addresses_are_replaced(text):
    redacted, counts = redact(text)
    assert counts == {"email": 1}
    assert "<EMAIL>" in redacted
    assert not re.search("@|company|web", redacted)


@pytest.mark.parametrize("text", [
    "git@github.com:owner/name.git", "user@example.com", "user@host.local", "@decorator.method", "a @ b.com",
    "q@k.mT", "scores = q@keys.to(device)", "x@self.weight.data", "icon@2x.png", "lodash@4.17.21",
    "import '@scope/pkg.io'", "noreply@github.com", "https://medium.com/@writer.me", "w@v.at[0]", "user@localhost",
])
def test_what_only_looks_like_a_mail_address_stays(text):
    assert redact(text) == (text, {})


@pytest.mark.parametrize(("text", "kind"), [
    ("host = '93.184.216.34'", "ipv4"), ("http://93.184.216.34:8080/x", "ipv4"), ("93.184.216.34", "ipv4"),
    ("server 93.184.216.34.", "ipv4"), ("[2606:2800:220:1:248:1893:25c8:1946]:80", "ipv6"), ("2606:4700::1111", "ipv6"),
])
def test_public_addresses_are_replaced(text, kind):
    redacted, counts = redact(text)
    assert counts == {kind: 1}
    assert "<IP_ADDRESS>" in redacted


@pytest.mark.parametrize("text", [
    "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.9", "0.0.0.0", "255.255.255.255", "224.0.0.1",
    "192.0.2.1 198.51.100.7 203.0.113.9", "8.8.8.8", "1.2.3.4", "20.20.20.20",
    "version 41.12.13.14", "__version__ = '41.12.13.14'",
    "section 8.2.14.44", "192.31.196.0/24", "34.216.184.93.in-addr.arpa",
    "AssemblyVersion(\"41.12.13.14\")", "package==41.12.13.14", "v41.12.13.14", "1.3.6.1.4.1", "41.12.13.14.15",
    "41.12.13.14-rc1", "41.12.13.256", "x41.12.13.14", "41.012.13.14", "Chrome/41.12.13.14", "2001:db8::1", "::1",
    "fe80::1", "std::vector<int>", "dead::beef", "2020:01:01 10:22", "12:34:56",
])
def test_private_and_documentation_addresses_and_versions_stay(text):
    assert redact(text) == (text, {})


def test_each_kind_can_be_switched_off():
    text = f"jane@company.com 93.184.216.34 {TOKENS['npm_token']} password='hunter2horse'"
    for name, rule in (("emails", "email"), ("ip_addresses", "ipv4"), ("keys", "npm_token"), ("passwords", "password")):
        assert set(redact(text)[1]) - set(redact(text, SecretSettings(**{name: False}))[1]) == {rule}


fragments = st.sampled_from([
    *TOKENS.values(), PEM, PEM.replace("\n", "\\n"), "password = 'hunter2horse'", "jane@company.com", "93.184.216.34",
    "2606:4700::1111", "://u:pa55word1@", "secret: ", '"', "'", "@", ".", ":", "\n", "\r\n", " = ", "é", "<KEY>", "a1",
    "<EMAIL>", "-----END", "token", "company.com"])


@settings(max_examples=200)
@given(st.lists(st.one_of(fragments, st.text(max_size=4)), max_size=12).map("".join))
def test_redacting_twice_changes_nothing_and_lines_stay_counted(text):
    once, counts = redact(text)
    assert redact(once) == (once, {})
    assert len(once.splitlines()) == len(text.splitlines())
    assert once == text or counts


def test_entropy_is_that_of_the_bytes():
    assert bits_per_byte(b"aaaa") == 0
    assert bits_per_byte(b"abcdefgh") == 3
    assert bits_per_byte(b"") == 0


def test_settings_travel_between_processes():
    assert pickle.loads(pickle.dumps(SecretSettings(emails=False))) == SecretSettings(emails=False)
