"""Which ways a recipient has, in which order, and which messages wait for the same ones."""

from __future__ import annotations

from mailer.config.schema import Config, DirectDeliveryConfig, ProviderConfig
from mailer.mail.address import Address
from mailer.mail.envelope import Recipient
from mailer.routing import LOCAL, Router, direct_domain, ways_of_lane

DIRECT = DirectDeliveryConfig(enabled=True)
FIRST = ProviderConfig(host="one.test", port=25, name="one", priority=1)
SECOND = ProviderConfig(host="two.test", port=25, name="two", priority=2, domains=("a.test",))


def recipient(address: str, index: int = 0) -> Recipient:
    return Recipient(index, Address.parse(address))


def ways(router: Router, address: str) -> tuple[str, ...]:
    return router.ways(recipient(address), "id")


def test_mail_goes_into_local_files_only_where_nothing_else_is_enabled() -> None:
    assert ways(Router(Config()), "x@a.test") == (LOCAL,)
    assert ways(Router(Config(direct_delivery=DIRECT)), "x@a.test") == ("direct:a.test",)
    assert ways(Router(Config(forward_providers=(FIRST,))), "x@a.test") == ("one",)


def test_the_recipients_own_servers_come_before_the_providers() -> None:
    router = Router(Config(direct_delivery=DIRECT, forward_providers=(SECOND, FIRST)))
    assert ways(router, "x@a.test") == ("direct:a.test", "one", "two")
    assert ways(router, "x@b.test") == ("direct:b.test", "one")


def test_the_recipients_own_servers_come_first_though_providers_share_the_load_by_weight() -> None:
    providers = tuple(ProviderConfig(host="h", port=25, name=name, priority=0, weight=1) for name in ("one", "two"))
    router = Router(Config(direct_delivery=DIRECT, forward_providers=providers))
    orders = {router.ways(recipient("x@a.test"), f"id{n}") for n in range(50)}
    assert orders == {("direct:a.test", "one", "two"), ("direct:a.test", "two", "one")}


def test_domains_that_differ_in_letter_case_are_one_way() -> None:
    router = Router(Config(direct_delivery=DIRECT))
    assert ways(router, "x@A.Test") == ways(router, "y@a.test")


def test_mail_for_one_domain_waits_in_a_lane_of_its_own_and_mail_for_several_in_one_lane() -> None:
    router = Router(Config(direct_delivery=DIRECT, forward_providers=(FIRST,)))
    one = router.lane([recipient("x@a.test"), recipient("y@a.test", 1)])
    assert set(ways_of_lane(one)) == {"direct:a.test", "one"}
    several = {router.lane([recipient("x@a.test"), recipient(f"y@{n}.test", 1)]) for n in range(20)}
    assert [set(ways_of_lane(lane)) for lane in several] == [{"direct:*", "one"}]
    assert router.ranked(one) == ["direct:a.test", "one"]


def test_a_way_says_which_domain_it_leads_to() -> None:
    assert direct_domain("direct:a.test") == "a.test"
    assert direct_domain("smtp.example.com:587") is None
