"""Push rules.

https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from homeserver.core.errors import Unrecognized
from homeserver.core.push_rules.rule import Actions, PushRule, PushRuleKind
from homeserver.services.push.rules import PushRules
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

_RULES = "/_matrix/client/v3/pushrules/"
_RULE = "/_matrix/client/v3/pushrules/global/{kind}/{rule_id}"
_ENABLED = {"type": "object", "required": ["enabled"], "properties": {"enabled": {"type": "boolean"}}}
_ACTIONS = {"type": "object", "required": ["actions"], "properties": {"actions": {"type": "array"}}}


def section(push_rules: PushRules) -> Section:
    """The endpoints."""
    s = Section("Push rules")
    _read_all(s, push_rules)
    _change_rules(s, push_rules)
    _attributes(s, push_rules)
    _wrong_paths(s)
    return s


def _read_all(s: Section, push_rules: PushRules) -> None:
    @s.endpoint("GET", _RULES)
    async def get_push_rules(request: Request) -> Response:
        """All push rules of the user."""
        return Response(await push_rules.content(request.requester.user_id))

    @s.endpoint("GET", f"{_RULES}global/")
    async def get_push_rules_global(request: Request) -> Response:
        """All push rules of the user, by kind."""
        return Response((await push_rules.content(request.requester.user_id))["global"])

    # COMPAT(Synapse): older specifications had it, and clients may still ask.
    @s.endpoint("GET", f"{_RULES}global/{{kind}}/")
    async def get_push_rules_of_kind(request: Request) -> Response:
        """The push rules of one kind."""
        kind = PushRuleKind.parse(request.path["kind"])
        return Response((await push_rules.content(request.requester.user_id))["global"][kind.value])


def _change_rules(s: Section, push_rules: PushRules) -> None:
    @s.endpoint("GET", _RULE)
    async def get_push_rule(request: Request) -> Response:
        """One push rule."""
        kind, rule_id = _named(request)
        user_id = request.requester.user_id
        return Response((await push_rules.get(user_id)).get_rule(kind, rule_id).to_json(user_id))

    @s.endpoint("PUT", _RULE, body={"type": "object"}, body_bytes_max=64 * 1024, rate_limit=RateLimit.WRITE)
    async def set_push_rule(request: Request) -> Response:
        """Adds a push rule, or changes one."""
        kind, rule_id = _named(request)
        rule = PushRule.parse(kind, rule_id, request.body)
        before, after = request.query_text("before"), request.query_text("after")
        await push_rules.put_rule(request.requester.user_id, rule, before=before, after=after)
        return EMPTY

    @s.endpoint("DELETE", _RULE, rate_limit=RateLimit.WRITE)
    async def delete_push_rule(request: Request) -> Response:
        """Removes a push rule of the user's own."""
        kind, rule_id = _named(request)
        await push_rules.delete_rule(request.requester.user_id, kind, rule_id)
        return EMPTY


def _attributes(s: Section, push_rules: PushRules) -> None:
    @s.endpoint("GET", f"{_RULE}/enabled")
    async def is_push_rule_enabled(request: Request) -> Response:
        """Whether a push rule is enabled."""
        kind, rule_id = _named(request)
        rule = (await push_rules.get(request.requester.user_id)).get_rule(kind, rule_id)
        return Response({"enabled": rule.enabled})

    @s.endpoint("PUT", f"{_RULE}/enabled", body=_ENABLED, body_bytes_max=4096, rate_limit=RateLimit.WRITE)
    async def set_push_rule_enabled(request: Request) -> Response:
        """Enables or disables a push rule."""
        kind, rule_id = _named(request)
        await push_rules.set_enabled(request.requester.user_id, kind, rule_id, enabled=request.body["enabled"])
        return EMPTY

    @s.endpoint("GET", f"{_RULE}/actions")
    async def get_push_rule_actions(request: Request) -> Response:
        """The actions of a push rule."""
        kind, rule_id = _named(request)
        rule = (await push_rules.get(request.requester.user_id)).get_rule(kind, rule_id)
        return Response({"actions": list(rule.actions.json)})

    @s.endpoint("PUT", f"{_RULE}/actions", body=_ACTIONS, body_bytes_max=64 * 1024, rate_limit=RateLimit.WRITE)
    async def set_push_rule_actions(request: Request) -> Response:
        """Changes the actions of a push rule."""
        kind, rule_id = _named(request)
        actions = Actions.parse(request.body["actions"])
        await push_rules.set_actions(request.requester.user_id, kind, rule_id, actions)
        return EMPTY


def _wrong_paths(s: Section) -> None:
    # COMPAT(Synapse): 400 and not 404 for wrong paths; its tests insist on it.
    path = f"{_RULES}{{rest:path}}"

    @s.endpoint("GET", path)
    async def get_unknown_push_rules(request: Request) -> Response:
        """Refuses paths that name no push rules."""
        raise Unrecognized("Unrecognized request", status=400 if request.path["rest"] else 404)

    @s.endpoint("PUT", path)
    async def set_unknown_push_rules(_: Request) -> Response:
        """Refuses paths that name no push rule."""
        raise Unrecognized("Unrecognized request", status=400)


def _named(request: Request) -> tuple[PushRuleKind, str]:
    return PushRuleKind.parse(request.path["kind"]), request.path["rule_id"]
