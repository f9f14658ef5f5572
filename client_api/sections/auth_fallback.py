"""Pages on which a user passes a stage of a registration that the client does not know how to show.

https://spec.matrix.org/v1.19/client-server-api/#fallback
"""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

from homeserver.config.schema import TermsConfig
from homeserver.core.errors import InvalidParam, MatrixError, NotFound
from homeserver.services.accounts.registration import Registration
from homeserver.services.accounts.uia_stages import DUMMY, REGISTRATION_TOKEN, TERMS
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_FORM_BYTES_MAX: Final = 16 * 1024
_FORM_FIELDS_MAX: Final = 20

_STYLE: Final = "body{font-family:sans-serif;max-width:32em;margin:3em auto;padding:0 1em}button,input{font-size:1em}"
_DONE_SCRIPT: Final = (
    "if(window.onAuthDone){window.onAuthDone();}"
    'else if(window.opener&&window.opener.postMessage){window.opener.postMessage("authDone","*");}'
)
_PAGE: Final = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width"><style>{style}</style></head>'
    "<body><h1>{title}</h1>{content}</body></html>"
)
_FORM: Final = '<form method="post"><input type="hidden" name="session" value="{session}">{fields}</form>'


def section(registration: Registration, terms: Sequence[TermsConfig]) -> Section:
    """The endpoints."""
    s = Section("User-interactive authentication fallback")
    fields = {
        DUMMY: '<p><button type="submit">Continue</button></p>',
        TERMS: _terms_fields(terms),
        REGISTRATION_TOKEN: (
            '<p><label>Registration token <input name="token" maxlength="64" autocomplete="off" required></label></p>'
            '<p><button type="submit">Continue</button></p>'
        ),
    }

    @s.endpoint("GET", "/_matrix/client/v3/auth/{auth_type}/fallback/web", access=Access.PUBLIC)
    async def get_auth_fallback(request: Request) -> Response:
        """A page with which to pass a stage."""
        session_id = request.query_required("session")
        return _form(fields, request.path["auth_type"], session_id)

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/auth/{auth_type}/fallback/web",
        access=Access.PUBLIC,
        body_bytes_max=_FORM_BYTES_MAX,
        rate_limit=RateLimit.REGISTRATION,
    )
    async def post_auth_fallback(request: Request) -> Response:
        """Passes a stage, and tells the client's window so."""
        auth_type = request.path["auth_type"]
        form = _form_fields(request.raw_body)
        session_id = form.get("session", [""])[-1]
        auth = {"type": auth_type, "session": session_id, "token": form.get("token", [""])[-1].strip()}
        if auth_type not in fields:
            raise NotFound("There is no page for this stage")
        try:
            await registration.pass_in_browser(session_id, auth, ip=request.ip)
        except MatrixError as error:
            return _form(fields, auth_type, session_id, failure=error)
        return _page("Done", f"<p>You may close this window.</p><script>{_DONE_SCRIPT}</script>")

    return s


def _form_fields(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode("utf-8", errors="replace"), max_num_fields=_FORM_FIELDS_MAX)
    except ValueError:
        raise InvalidParam("The form has too many fields") from None


def _form(
    fields: Mapping[str, str], auth_type: str, session_id: str, *, failure: MatrixError | None = None
) -> Response:
    if auth_type not in fields:
        raise NotFound("There is no page for this stage")
    form = _FORM.format(session=html.escape(session_id), fields=fields[auth_type])
    if failure is None:
        return _page("Registration", form)
    return _page("Registration", f"<p><strong>{html.escape(failure.message)}</strong></p>{form}", status=failure.status)


def _terms_fields(terms: Sequence[TermsConfig]) -> str:
    links = "".join(
        f'<li><a href="{html.escape(document.url)}" rel="noopener noreferrer" target="_blank">'
        f"{html.escape(document.name)}</a></li>"
        for document in terms
    )
    return f'<p>Please read and accept:</p><ul>{links}</ul><p><button type="submit">I accept</button></p>'


def _page(title: str, content: str, *, status: int = 200) -> Response:
    page = _PAGE.format(title=title, style=_STYLE, content=content)
    return Response(page.encode("utf-8", errors="replace"), status=status, headers=_HEADERS)


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS: Final[dict[str, Any]] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_source(_DONE_SCRIPT)}; style-src {_source(_STYLE)}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
