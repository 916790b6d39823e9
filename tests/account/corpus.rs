//! What would be markup, or a way out of an attribute, a URL, a style or a template, if it were read as such. Each that
//! could run a script sets `was_hit`.

pub(crate) const MARKUP: [&str; 20] = [
    "<script>was_hit=1</script>",
    "\"><img src=x onerror=was_hit=1>",
    "' onmouseover='was_hit=1",
    "\" autofocus onfocus=was_hit=1 x=\"",
    "</title><svg onload=was_hit=1>",
    "</textarea><iframe srcdoc=x>",
    "<style>*{color:red}</style>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0>",
    "<form action=//evil.example><button>",
    "<details open ontoggle=was_hit=1>",
    "<a href=javascript:was_hit=1>",
    "<math><mtext></form>",
    "javascript:was_hit=1",
    "data:text/html,<script>was_hit=1</script>",
    "{{ 7*7 }}{% raw %}${7*7}",
    "<!--",
    "]]><b>",
    "&lt;b&gt;&#60;",
    "+ADw-b+AD4- \u{ff1c}b\u{ff1e}",
];
