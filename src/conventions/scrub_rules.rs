//! What a secret looks like and which attributes hold content: tables for the scrub step, without behaviour.
//!
//! A new provider is a line in [`RULES`], a new dialect some names in [`CONTENT_KEYS`], [`CONTENT_PREFIXES`] or
//! [`CONTENT_SEGMENTS`].
//!
//! Patterns are written so that a match never contains a double quote, and a backslash only inside a private key. A
//! marker can therefore take the place of a match in JSON text too, and the text stays JSON.

/// What must hold beside the pattern before a match counts as a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing: the pattern says enough.
    None,
    /// Letters and digits, and not a word: for keys whose prefix also starts ordinary words.
    Random,
    /// As [`Guard::Random`], or so long that no word is: what follows `Bearer` is a token even without digits.
    Bearer,
    /// Upper case, lower case and digits, or many digits: for short prefixes before a free alphabet.
    Mixed,
    /// Base64 of `user:password`.
    BasicAuth,
    /// The name before it is one of [`DENIED_NAMES`] or [`SUSPECT_NAMES`], and the value looks like more than a word.
    Assigned,
    /// Anything but a placeholder such as `${PASSWORD}`.
    Password,
    /// The head of a private key; the match grows over its body.
    PrivateKey,
}

/// Where the anchor of a rule stands, and what must be around it: a look at a few bytes instead of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The secret begins with it: no letter or digit before it, some characters of a token behind it.
    Start,
    /// The same, with so many letters and digits behind it; for anchors that also begin ordinary words.
    StartOf(usize),
    /// Anywhere in the match.
    Inside,
    /// The same, in any case.
    Word,
    /// The same, and `key` follows soon.
    BeforeKey,
    /// It ends a name, in any case, and a sign of assignment follows. Before `key` stands more of the name.
    Name,
    /// The same, of a key in JSON: a quote and a colon follow.
    JsonName,
    /// It begins the authority of a URL, with something that may be a user and a password.
    Authority,
    /// It begins a flag of a command line, whose name ends like one in [`FLAG_NAMES`] and whose value follows.
    Flag,
}

/// In what values a rule is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In all, ids and enumerations too: nothing else looks so.
    Everywhere,
    /// In text only: the rule judges by randomness or by a name in front, and ids are random and have names.
    Text,
}

/// One kind of secret.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Word in the marker.
    pub kind: &'static str,
    /// Every match has one of them; all anchors of all rules are looked for in one pass.
    pub anchors: &'static [&'static str],
    /// Where they stand.
    pub place: Place,
    /// The pattern; its first group is the secret.
    pub pattern: &'static str,
    /// Whether the secret must begin where no letter or digit stands before it.
    pub at_boundary: bool,
    /// What must hold beside.
    pub guard: Guard,
    /// Where it is looked for.
    pub reach: Reach,
}

/// What may stand before a key: no letter or digit, unless that is the end of an escape in JSON or in a URL.
pub const BOUNDARY: &str = r"(?:^|[^A-Za-z0-9]|\\[nrtbf]|\\u[0-9A-Fa-f]{4}|%[0-9A-Fa-f]{2})";

/// A secret that begins with its anchor.
const fn token(kind: &'static str, anchors: &'static [&'static str], pattern: &'static str) -> Rule {
    let (place, guard, reach) = (Place::Start, Guard::None, Reach::Everywhere);
    Rule { kind, anchors, place, pattern, at_boundary: true, guard, reach }
}

/// A secret that is known by what stands around it.
const fn context(
    kind: &'static str,
    anchors: &'static [&'static str],
    place: Place,
    pattern: &'static str,
    guard: Guard,
) -> Rule {
    Rule { kind, anchors, place, pattern, at_boundary: false, guard, reach: Reach::Text }
}

impl Rule {
    const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    const fn guarded(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    const fn everywhere(self) -> Self {
        Self { reach: Reach::Everywhere, ..self }
    }

    const fn in_text(self) -> Self {
        Self { reach: Reach::Text, ..self }
    }
}

/// The kinds of secrets. Where two begin at the same place, the earlier line names it.
///
/// Patterns with a guard end in a bounded repetition: what a guard refuses is looked at once more from a later
/// start, and without the bound hostile text would make that quadratic. An accepted match grows to its full length
/// afterwards.
pub const RULES: &[Rule] = &[
    // Private keys and signed tokens.
    context(
        "private-key",
        &["-----BEGIN "],
        Place::Inside,
        r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)",
        Guard::PrivateKey,
    )
    .everywhere(),
    token("private-key", &["AGE-SECRET-KEY-"], r"(AGE-SECRET-KEY-1[0-9A-Z]{58})"),
    token(
        "jwt",
        &["eyJ"],
        r"(eyJ[A-Za-z0-9_-]{10,}\.(?:eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?|[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+))",
    ),
    // Model providers.
    token("anthropic", &["sk-ant-"], r"(sk-ant-[A-Za-z0-9_-]{16,})"),
    token("openrouter", &["sk-or-"], r"(sk-or-(?:v[0-9]-)?[A-Za-z0-9]{32,})"),
    token("langfuse", &["sk-lf-", "pk-lf-"], r"([sp]k-lf-[A-Za-z0-9-]{16,})"),
    token(
        "openai",
        &["sk-proj-", "sk-svcacct-", "sk-admin-", "sk-service-", "sk-None-"],
        r"(sk-(?:proj|svcacct|admin|service|None)-[A-Za-z0-9_-]{16,})",
    ),
    token("openai", &["sk-"], r"(sk-[A-Za-z0-9]{32,256})(?-u:\b)").guarded(Guard::Random),
    // Other servers take keys of this look; so may somebody's ids.
    token("openai", &["sk-"], r"(sk-[A-Za-z0-9]{20,256})(?-u:\b)").guarded(Guard::Random).in_text(),
    token("openai", &["sk-"], r"(sk-[A-Za-z0-9_-]{20,256})").guarded(Guard::Mixed).in_text(),
    token("google", &["AIza"], r"(AIza[A-Za-z0-9_-]{35})"),
    token("google", &["AQ.Ab"], r"(AQ\.Ab[A-Za-z0-9_-]{30,})"),
    token("google-oauth", &["ya29."], r"(ya29\.[A-Za-z0-9._-]{20,})"),
    token("google-oauth", &["GOCSPX-"], r"(GOCSPX-[A-Za-z0-9_-]{20,})"),
    token("google-oauth", &["1//0"], r"(1//0[A-Za-z0-9_-]{30,})"),
    token("huggingface", &["hf_", "api_org_"], r"((?:hf|api_org)_[A-Za-z0-9]{30,})"),
    token("groq", &["gsk_"], r"(gsk_[A-Za-z0-9]{32,})"),
    token("xai", &["xai-"], r"(xai-[A-Za-z0-9]{32,})"),
    token("replicate", &["r8_"], r"(r8_[A-Za-z0-9]{30,})"),
    token("perplexity", &["pplx-"], r"(pplx-[A-Za-z0-9]{32,})"),
    token("cerebras", &["csk-"], r"(csk-[a-z0-9]{40,})"),
    token("nvidia", &["nvapi-"], r"(nvapi-[A-Za-z0-9_-]{40,})"),
    token("together", &["tgp_v"], r"(tgp_v[0-9]_[A-Za-z0-9_-]{30,})"),
    token("fireworks", &["fw_"], r"(fw_[A-Za-z0-9]{20,256})").guarded(Guard::Random).in_text(),
    token("elevenlabs", &["sk_"], r"(sk_[0-9a-f]{48})(?-u:\b)"),
    // Tools that agents use.
    token("langsmith", &["lsv2_", "ls__"], r"(lsv2_[a-z]{2}_[0-9a-f]{32}(?:_[0-9a-f]{6,})?|ls__[0-9a-f]{32})"),
    token("logfire", &["pylf_v"], r"(pylf_v[0-9]_[a-z]{2}_[A-Za-z0-9]{30,})"),
    token("tavily", &["tvly-"], r"(tvly-[A-Za-z0-9-]{20,256})").guarded(Guard::Random),
    token("firecrawl", &["fc-"], r"(fc-[0-9a-f]{32})(?-u:\b)").at(Place::StartOf(32)),
    token("e2b", &["e2b_"], r"(e2b_[0-9a-f]{40})"),
    token("jina", &["jina_"], r"(jina_[A-Za-z0-9]{20}[A-Za-z0-9_-]{20,})").at(Place::StartOf(20)),
    token("pinecone", &["pcsk_"], r"(pcsk_[A-Za-z0-9_]{40,})"),
    // Clouds.
    token("aws-key-id", &["AKIA", "ASIA", "ABIA", "ACCA"], r"(A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16})(?-u:\b)")
        .at(Place::StartOf(16)),
    context(
        "aws-secret",
        &["AKIA", "ASIA"],
        Place::Inside,
        r#"A[KS]IA[A-Z0-9]{16}[^A-Za-z0-9]{1,4}([A-Za-z0-9/+]{40})(?:$|[^A-Za-z0-9/+=])"#,
        Guard::Mixed,
    ),
    context(
        "aws-secret",
        &["secret"],
        Place::BeforeKey,
        r"(?i-u:secret[ _-]?(?:access)?[ _-]?key)(?: is)?[^A-Za-z0-9/+]{1,8}([A-Za-z0-9/+]{40})(?:$|[^A-Za-z0-9/+=])",
        Guard::Mixed,
    ),
    token("aws-bedrock", &["ABSK"], r"(ABSK[A-Za-z0-9+/]{80,}={0,2})"),
    token("aws-bedrock", &["bedrock-api-key-"], r"(bedrock-api-key-[A-Za-z0-9+/=_-]{60,})"),
    context("azure", &["JQQJ9"], Place::Inside, r"([A-Za-z0-9]{40,64}JQQJ9[A-Za-z0-9]{20,})", Guard::None).everywhere(),
    context("azure", &["Q~"], Place::Inside, r"([A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})", Guard::Mixed)
        .everywhere(),
    context(
        "azure-sas",
        &["?sig=", "&sig=", ";sig="],
        Place::Inside,
        r"[?&;]sig=([A-Za-z0-9%/+]{40,}(?:%3[dD]|=)?)",
        Guard::None,
    )
    .everywhere(),
    // Signed addresses of files, by AWS and Google: who has one reads the file.
    context(
        "signed-url",
        &["X-Amz-Signature=", "X-Goog-Signature="],
        Place::Inside,
        r"X-(?:Amz|Goog)-Signature=([0-9A-Fa-f]{64,})",
        Guard::None,
    )
    .everywhere(),
    // Connection strings of storage, queues and Cosmos DB.
    context(
        "azure",
        &["accountkey", "sharedaccesskey"],
        Place::Name,
        r"(?i-u:accountkey|sharedaccesskey)=([A-Za-z0-9+/]{40,}={0,2})",
        Guard::None,
    )
    .everywhere(),
    context(
        "azure",
        &["azure", "cognitive", "subscription"],
        Place::BeforeKey,
        r"(?i-u:(?:azure|cognitive|subscription)[A-Za-z0-9_ .-]{0,40}key)(?: is)?[^A-Za-z0-9]{1,6}([0-9A-Fa-f]{32})(?-u:\b)",
        Guard::None,
    ),
    token("databricks", &["dapi"], r"(dapi[0-9a-f]{32}(?:-[0-9]{1,2})?)(?-u:\b)").at(Place::StartOf(32)),
    token("digitalocean", &["doo_v1_", "dop_v1_", "dor_v1_"], r"(do[opr]_v1_[0-9a-f]{64})"),
    token("vault", &["hvs.", "hvb.", "hvr."], r"(hv[sbr]\.[A-Za-z0-9_-]{20,})"),
    token("terraform", &[".atlasv1."], r"([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,})").at(Place::Inside),
    token("pulumi", &["pul-"], r"(pul-[0-9a-f]{40})(?-u:\b)").at(Place::StartOf(40)),
    token("heroku", &["HRKU-"], r"(HRKU-[A-Za-z0-9_-]{30,})"),
    token("fly", &["fm1_", "fm1a_", "fm1r_", "fm2_"], r"(fm[12][ar]?_[A-Za-z0-9+/_-]{80,}={0,2})"),
    token("vercel", &["vercel_blob_rw_"], r"(vercel_blob_rw_[A-Za-z0-9]{10,}_[A-Za-z0-9]{24,})"),
    token("vercel", &["vck_", "vcp_", "vci_", "vca_", "vcr_"], r"(vc[kpiar]_[A-Za-z0-9]{40,})").at(Place::StartOf(40)),
    token("netlify", &["nfp_"], r"(nfp_[A-Za-z0-9]{36})").at(Place::StartOf(36)),
    token("tailscale", &["tskey-"], r"(tskey-[a-z]+-[A-Za-z0-9]{8,}-[A-Za-z0-9]{16,})"),
    token("supabase", &["sb_secret_", "sbp_"], r"(sb_secret_[A-Za-z0-9_-]{20,}|sbp_[0-9a-f]{40})"),
    token("planetscale", &["pscale_"], r"(pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,})"),
    // Code and packages.
    token("github", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"(gh[pousr]_[A-Za-z0-9]{30,})"),
    token("github", &["github_pat_"], r"(github_pat_[A-Za-z0-9_]{22,})"),
    token(
        "gitlab",
        &["glpat-", "gldt-", "glrt-", "glptt-", "glft-", "glsoat-", "glcbt-", "glagent-", "glimt-", "gloas-"],
        r"(gl(?:pat|dt|rt|ptt|ft|soat|cbt|agent|imt|oas)-[A-Za-z0-9_.-]{20,})",
    ),
    token("npm", &["npm_"], r"(npm_[A-Za-z0-9]{36})").at(Place::StartOf(36)),
    token("pypi", &["pypi-AgE"], r"(pypi-AgE[A-Za-z0-9_-]{50,})"),
    token("rubygems", &["rubygems_"], r"(rubygems_[0-9a-f]{48})"),
    // Three letters before a free alphabet: an id may begin so.
    token("crates-io", &["cio"], r"(cio[A-Za-z0-9]{32})(?-u:\b)").at(Place::StartOf(32)).in_text(),
    token("docker", &["dckr_"], r"(dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,})"),
    token("postman", &["PMAK-"], r"(PMAK-[0-9a-f]{24}-[0-9a-f]{34})"),
    // Services.
    token(
        "slack",
        &["xox", "xapp-"],
        r"(xox[abcdeoprs](?:\.xox[bp])?-[A-Za-z0-9%-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{20,})",
    ),
    context(
        "slack",
        &["hooks.slack.com/"],
        Place::Inside,
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{20,})",
        Guard::None,
    )
    .everywhere(),
    context(
        "discord",
        &["/api/webhooks/"],
        Place::Inside,
        r"/api/webhooks/[0-9]{10,}/([A-Za-z0-9_-]{50,})",
        Guard::None,
    )
    .everywhere(),
    token("telegram", &[":AA"], r"([0-9]{8,10}:AA[A-Za-z0-9_-]{32,33})(?-u:\b)").at(Place::Inside),
    token(
        "stripe",
        &["sk_live_", "sk_test_", "sk_prod_", "rk_live_", "rk_test_", "rk_prod_", "whsec_"],
        r"([sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{24,})",
    ),
    token("square", &["sq0atp-", "sq0csp-"], r"(sq0(?:atp-[A-Za-z0-9_-]{22,}|csp-[A-Za-z0-9_-]{43,}))"),
    token("resend", &["re_"], r"(re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24})(?-u:\b)").at(Place::StartOf(8)).in_text(),
    token("sendgrid", &["SG."], r"(SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{32,})"),
    token("twilio", &["SK"], r"(SK[0-9a-f]{32})(?-u:\b)").at(Place::StartOf(32)),
    // Account and password, as they stand in a URL, a command or a setting.
    token("twilio", &["AC"], r#"AC[0-9a-f]{32}[\s:"',\\]{1,6}([0-9a-f]{32})(?-u:\b)"#).at(Place::StartOf(32)).in_text(),
    context(
        "twilio",
        &["twilio"],
        Place::Word,
        r"(?i-u:twilio[A-Za-z0-9_ .-]{0,20}(?:token|secret|key))(?: is)?[^A-Za-z0-9]{1,6}([0-9a-f]{32})(?-u:\b)",
        Guard::None,
    ),
    // Hashes with a word before or a region behind them are common ids.
    token("mailgun", &["key-"], r"(key-[0-9a-f]{32})(?-u:\b)").at(Place::StartOf(32)).in_text(),
    token(
        "mailchimp",
        &["-us1", "-us2", "-us3", "-us4", "-us5", "-us6", "-us7", "-us8", "-us9"],
        r"([0-9a-f]{32}-us[0-9]{1,2})(?-u:\b)",
    )
    .at(Place::Inside)
    .in_text(),
    token("grafana", &["glsa_", "glc_"], r"(glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}|glc_[A-Za-z0-9+/=]{32,})"),
    token("newrelic", &["NRAK-"], r"(NRAK-[A-Z0-9]{27})"),
    token("sentry", &["sntrys_", "sntryu_"], r"(sntry[su]_[A-Za-z0-9_+/=]{40,})"),
    token("linear", &["lin_api_", "lin_oauth_"], r"(lin_(?:api|oauth)_[A-Za-z0-9]{32,})"),
    token("notion", &["ntn_", "secret_"], r"(ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43})(?-u:\b)")
        .at(Place::StartOf(40)),
    token("airtable", &["pat"], r"(pat[A-Za-z0-9]{14}\.[0-9a-f]{64})").at(Place::StartOf(14)),
    token("shopify", &["shpat_", "shpca_", "shppa_", "shpss_"], r"(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})"),
    token("atlassian", &["ATATT3"], r"(ATATT3[A-Za-z0-9_=-]{50,})"),
    token("figma", &["figd_"], r"(figd_[A-Za-z0-9_-]{36,})"),
    token(
        "doppler",
        &["dp.pt.", "dp.st.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."],
        r"(dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{40,})",
    ),
    // What a header or a setting says about itself.
    context(
        "bearer",
        &["bearer ", "bearer\t", "bearer%20"],
        Place::Word,
        r"(?i-u:bearer)(?:[ \t]+|%20)([A-Za-z0-9._~+/-]{12,256}=*)",
        Guard::Bearer,
    )
    .everywhere(),
    // A mail address may go on after its `+`.
    context("bearer", &["bearer+"], Place::Word, r"(?i-u:bearer)\+([A-Za-z0-9._~+/-]{12,256}=*)", Guard::Bearer),
    context(
        "basic-auth",
        &["basic ", "basic\t"],
        Place::Word,
        r"(?i-u:basic)[ \t]+([A-Za-z0-9+/]{6,256}={0,2})",
        Guard::BasicAuth,
    )
    .everywhere(),
    context(
        "authorization",
        &["authorization"],
        Place::Name,
        r#"(?i-u:authorization)\\*["']?[ \t]*[:=][ \t]*\\*["']?(?:(?i-u:bearer|basic|token|apikey|api-key|digest|key|bot)[ \t]+)?([^\s"'\\,;]{8,256})"#,
        Guard::Random,
    ),
    context(
        "cookie",
        &["cookie"],
        Place::Name,
        r#"(?i-u:cookie)\\*["']?[ \t]*:[ \t]*\\*["']?([A-Za-z0-9_.%-]{1,128}=[^"'\\\r\n]+)"#,
        Guard::None,
    ),
    context(
        "url-password",
        &["://", r":\/\/"],
        Place::Authority,
        r#":(?://|\\/\\/)[^\s/?\#@"'\\:]*:([^\s/?\#@"'\\]{1,256})@"#,
        Guard::Password,
    )
    .everywhere(),
    context(
        "secret",
        ASSIGNED_NAMES,
        Place::Name,
        r#"(?i-u:password|passwd|passphrase|passcode|pwd|secret|token|key|credentials?)\\*["']?[ \t]*(?::=|=>|[:=])[ \t]*\\*["'`]([^"'`\\\r\n]{6,256})"#,
        Guard::Assigned,
    ),
    context(
        "secret",
        ASSIGNED_NAMES,
        Place::Name,
        r#"(?i-u:password|passwd|passphrase|passcode|pwd|secret|token|key|credentials?)\\*["']?[ \t]*(?::=|=>|[:=])[ \t]*([^\s"'`\\,;&<>]{6,256})"#,
        Guard::Assigned,
    ),
    context(
        "secret",
        &["--"],
        Place::Flag,
        r#"--[a-z-]{0,40}(?:password|passwd|passphrase|pwd|secret|token|key)[ \t]+["']?([^\s"'`\\,;&<>]{6,256})"#,
        Guard::Assigned,
    ),
];

// Ends of names of settings, in front of a sign of assignment. `key` alone names too much; with a word before it, it
// is judged by the tables of names below.
const ASSIGNED_NAMES: &[&str] =
    &["password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "key", "credential", "credentials"];

/// Ends of flags whose value is a secret.
pub const FLAG_NAMES: &[&str] = &["password", "passwd", "passphrase", "pwd", "secret", "token", "key"];

/// Ends of the names in [`DENIED_EXACT`], [`DENIED_NAMES`] and [`SUSPECT_NAMES`], as keys in JSON, where they make a
/// difference.
pub const JSON_NAMES: &[&str] = &[
    "password",
    "pass-word",
    "pass_word",
    "passwd",
    "pass-wd",
    "pass_wd",
    "passphrase",
    "pass-phrase",
    "pass_phrase",
    "passcode",
    "pass-code",
    "pass_code",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "credentials",
    "jwt",
    "auth",
    "authorization",
    "cookie",
    "cookie2",
];

/// Names whose values are secrets as a whole, without `-` and `_` and in lower case; compared with the last segment
/// of a dotted key.
pub const DENIED_EXACT: &[&str] = &[
    "authorization",
    "proxyauthorization",
    "xauthorization",
    "cookie",
    "setcookie",
    "cookie2",
    "setcookie2",
    "xapikey",
    "apikey",
];

/// The same for the ends of names, so that `OPENAI_API_KEY` and `dbPassword` are known too.
pub const DENIED_NAMES: &[&str] = &[
    "apikey",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "clientsecret",
    "appsecret",
    "secretkey",
    "secretaccesskey",
    "apisecret",
    "privatekey",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "bearertoken",
    "sessiontoken",
    "securitytoken",
    "apitoken",
    "vaulttoken",
    "privatetoken",
    "accountkey",
    "sharedaccesskey",
    "accesskey",
    "authkey",
    "signingkey",
    "encryptionkey",
    "subscriptionkey",
];

/// Ends of names whose values are secrets only if they look random.
pub const SUSPECT_NAMES: &[&str] = &["token", "secret", "credential", "credentials", "pwd", "jwt", "auth"];

/// Words before `token` that make it a place in a list, or a word of a model's vocabulary.
pub const HARMLESS_TOKENS: &[&str] = &[
    "page",
    "next",
    "previous",
    "continuation",
    "cursor",
    "sync",
    "resume",
    "progress",
    "skip",
    "start",
    "end",
    "stop",
    "eos",
    "bos",
    "pad",
    "unk",
    "sep",
    "cls",
    "mask",
    "special",
    "first",
    "last",
];

/// Parts of a JSON schema; they keep their text under a denied name, because a tool's parameter may be called
/// `password` and its description is no secret.
pub const SCHEMA_WORDS: &[&str] = &["type", "description", "title", "format", "$ref", "pattern", "enum", "required"];

/// What stands for a value in examples and templates, in lower case.
pub const PLACEHOLDERS: &[&str] = &[
    "your_",
    "your-",
    "<your",
    "changeme",
    "placeholder",
    "xxxx",
    "****",
    "....",
    "redacted",
    "environ",
    "getenv",
    "process.env",
    "env.",
    "secrets.",
    "example.com",
];

/// Values of a password setting that are no passwords.
pub const NO_PASSWORDS: &[&str] = &[
    "string",
    "password",
    "passwd",
    "secret",
    "required",
    "optional",
    "hidden",
    "undefined",
    "missing",
    "invalid",
    "integer",
    "boolean",
    "number",
    "object",
    "expired",
    "not set",
    "passphrase",
];

/// Keys that hold ids, enumerations and addresses, beside those whose last word is `id`. In their values only rules that
/// reach everywhere are looked for, so that no real id is ever taken for a secret. Sorted.
pub const ID_KEYS: &[&str] = &[
    "ai.model.id",
    "ai.model.provider",
    "ai.operationId",
    "ai.response.finishReason",
    "ai.response.id",
    "ai.response.model",
    "ai.response.timestamp",
    "ai.toolCall.id",
    "error.type",
    "exception.type",
    "gen_ai.agent.call.id",
    "gen_ai.agent.id",
    "gen_ai.conversation.id",
    "gen_ai.operation.name",
    "gen_ai.output.type",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.system",
    "gen_ai.token.type",
    "gen_ai.tool.call.id",
    "gen_ai.tool.type",
    "host.arch",
    "host.id",
    "http.request.method",
    "http.response.status_code",
    "http.status_code",
    "jsonrpc.request.id",
    "langfuse.observation.type",
    "level",
    "llm.model_name",
    "llm.provider",
    "llm.system",
    "mcp.method.name",
    "mcp.protocol.version",
    "mcp.session.id",
    "mlflow.spanType",
    "mlflow.traceRequestId",
    "network.transport",
    "openinference.span.kind",
    "os.type",
    "otel.status_code",
    "process.pid",
    "process.runtime.name",
    "process.runtime.version",
    "runspan.budget",
    "runspan.content",
    "runspan.cost.source",
    "runspan.cost.table",
    "runspan.cost.usd",
    "runspan.external.id",
    "runspan.parent_run.id",
    "runspan.replayed_run.id",
    "runspan.run.id",
    "runspan.step.kind",
    "runspan.step.status",
    "runspan.store.id",
    "runspan.usage.basis",
    "runspan.usage.of_total",
    "server.address",
    "server.port",
    "service.instance.id",
    "service.version",
    "session.id",
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
    "thread.id",
    "traceloop.span.kind",
    "user.id",
];

/// Keys that hold text although their last word is `id`: people name the source of a look-up by a connection string.
pub const NO_ID_KEYS: &[&str] = &["gen_ai.data_source.id"];

/// Keys that are content whatever stands before them: what a model, a tool or a user said.
pub const CONTENT_KEYS: &[&str] = &[
    // Nobody knows what these are.
    crate::model::unknown::UNKNOWN_FIELDS,
    crate::model::unknown::UNKNOWN_OF_LOG,
    "ai.embedding",
    "ai.embeddings",
    "ai.schema",
    "ai.value",
    "ai.values",
    "all_messages_events",
    // A command line is where people put the prompt of an agent.
    "process.command_args",
    "process.command_line",
    "body",
    "db.query.text",
    "db.statement",
    "events",
    "embeddings",
    "final_result",
    "full_command",
    "gen_ai.agent.description",
    "gen_ai.evaluation.explanation",
    "gen_ai.memory.query.text",
    "gen_ai.response.text",
    "gen_ai.retrieval.query.text",
    "gen_ai.tool.args",
    "gen_ai.tool.description",
    "gen_ai.tool.json_schema",
    "gen_ai.tool.message",
    "gen_ai.request.tool.definitions",
    "gen_ai.workflow.request",
    "gen_ai.workflow.response",
    "gcp.vertex.agent.data",
    "gcp.vertex.agent.llm_request",
    "gcp.vertex.agent.llm_response",
    "gcp.vertex.agent.tool_call_args",
    "gcp.vertex.agent.tool_response",
    "haystack.tool.description",
    "llm.invocation_parameters",
    "logfire.msg",
    "message",
    "mirascope.trace.arg_values",
    "mlflow.chunk.value",
    "model_request_parameters",
    "new_context",
    "parameters",
    "raw_input",
    "reasoning",
    "request_data",
    "response",
    "response_data",
    "tool.description",
    "tool.parameters",
];

/// The same for a whole family: the key itself and all below it.
pub const CONTENT_PREFIXES: &[&str] = &[
    "ai.prompt",
    "ai.response.object",
    "ai.response.providerMetadata",
    "ai.response.reasoning",
    "ai.response.text",
    "ai.response.toolCalls",
    "ai.result",
    "db.query.parameter",
    "embedding.embeddings",
    "gen_ai.completion",
    "gen_ai.content",
    "gen_ai.input.messages",
    "gen_ai.memory.records",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.retrieval.documents",
    "gen_ai.system_instructions",
    "gen_ai.task.input",
    "gen_ai.task.output",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "input",
    "langfuse.observation.metadata",
    "langfuse.trace.metadata",
    "llm.anthropic",
    "llm.choices",
    "llm.completions",
    "llm.input_messages",
    "llm.openai",
    "llm.output_messages",
    "llm.prompt_template",
    "llm.prompts",
    "llm.request.functions",
    "llm.tools",
    "mlflow.chat.tools",
    "mlflow.chunk.item",
    "output",
    "reranker.input_documents",
    "reranker.output_documents",
    "reranker.query",
    "result.content",
    "retrieval.documents",
    "runspan.embeddings",
    "runspan.environment",
    "runspan.event.fields",
    "runspan.input",
    "runspan.output",
    "runspan.request.response_format",
];

/// The same for the last segment of a key in any dialect, without `-` and `_` and in lower case.
pub const CONTENT_SEGMENTS: &[&str] = &[
    "allmessages",
    "answer",
    "args",
    "argument",
    "arguments",
    "completion",
    "completions",
    "content",
    "contents",
    "documents",
    "functionargs",
    "input",
    "inputdata",
    "inputs",
    "instructions",
    "llmrequest",
    "llmresponse",
    "messages",
    "modeloutput",
    "output",
    "outputdata",
    "outputs",
    "prompt",
    "prompts",
    "prompttext",
    "query",
    "question",
    "requestbody",
    "requesttext",
    "responsebody",
    "responsetext",
    "result",
    "spaninputs",
    "spanoutputs",
    "systeminstructions",
    "systemprompt",
    "toolargs",
    "toolarguments",
    "toolcalls",
    "tooldefinitions",
    "tooldescription",
    "toolinput",
    "tooloutput",
    "toolparameters",
    "toolresponse",
    "toolresult",
    "tools",
    "traceinput",
    "traceoutput",
    "userinput",
    "userprompt",
];

/// Keys of those families that are metadata.
pub const METADATA_KEYS: &[&str] =
    &["gen_ai.prompt.name", "gen_ai.prompt.version", "input.mime_type", "output.mime_type"];

/// Words in a key that make it metadata: counts and prices are often called `input` and `output`.
pub const METADATA_PARTS: &[&str] = &["usage", "token", "cost", "finish_reason", "finishReason"];

/// Names of events that carry messages; of their attributes only metadata stays.
pub const CONTENT_EVENTS: &[&str] = &[
    "gen_ai.assistant.message",
    "gen_ai.choice",
    "gen_ai.client.inference.operation.details",
    "gen_ai.content.completion",
    "gen_ai.content.prompt",
    "gen_ai.evaluation.result",
    "gen_ai.system.message",
    "gen_ai.tool.message",
    "gen_ai.user.message",
    "tool.output",
];
