"""Builds the content repository: where files lie, what is done with them, and all endpoints."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from client_api.admin import media as admin_media
from client_api.sections import media, media_previews, media_unauthenticated
from federation.inbound import media as served_media
from homeserver.config.schema import ByteRateConfig
from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.media_store import media_store
from homeserver.runtime.other_servers import MakeHttpClient
from homeserver.runtime.web_pages import HttpWebPages
from homeserver.services.media.administration import MediaAdministration
from homeserver.services.media.byte_rates import ByteBuckets, ByteRates
from homeserver.services.media.contents import Contents
from homeserver.services.media.downloads import Downloads
from homeserver.services.media.picture_processes import PictureProcesses
from homeserver.services.media.ports import RemoteMediaSource, WebPages
from homeserver.services.media.previews import UrlPreviews
from homeserver.services.media.remote_copies import RemoteCopies
from homeserver.services.media.retention import MediaRetention
from homeserver.services.media.thumbnails import Thumbnails
from homeserver.services.media.uploads import Uploads
from homeserver.web.endpoint import Section

FILES_AT_ONCE: Final = 4
"""How many of the largest files somebody may bring, or have fetched, at the same time beyond the burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """All endpoints, by who calls them, and what runs beside the listeners."""

    sections: Sequence[Section]
    admin_sections: Sequence[Section]
    federation_sections: Sequence[Section]
    background: Sequence[BackgroundTask]


async def compose_media(
    means: Means,
    buckets: ByteBuckets,
    source: RemoteMediaSource,
    make_http_client: MakeHttpClient,
    stack: AsyncExitStack,
) -> Media:
    """Builds the services and their endpoints.

    Args:
        means: what it is made with.
        buckets: count the bytes that users bring and have fetched.
        source: asks other servers for their media.
        make_http_client: makes what fetches pages for previews.
        stack: takes down what is opened here.
    """
    db, clock, config, server_name = means.db, means.clock, means.config.media, means.config.server_name
    store = await stack.enter_async_context(media_store(means.config, clock))
    contents = Contents(db=db, store=store, clock=clock)
    uploads = Uploads(
        db=db,
        contents=contents,
        rates=_rates(f"{server_name} uploads", config.uploads, config.upload_bytes_max, buckets),
        config=config,
        server_name=server_name,
        clock=clock,
    )
    copies = RemoteCopies(
        db=db,
        contents=contents,
        source=source,
        rates=_rates(f"{server_name} fetches", config.remote_fetches, config.remote_bytes_max, buckets),
        config=config,
        clock=clock,
    )
    downloads = Downloads(
        db=db,
        contents=contents,
        copies=copies,
        server_name=server_name,
        require_authentication=config.require_authentication,
        clock=clock,
    )
    processes = await stack.enter_async_context(PictureProcesses(pixels_max=config.picture_pixels_max))
    thumbnails = Thumbnails(db=db, contents=contents, processes=processes)
    retention = MediaRetention(db=db, contents=contents, config=config, server_name=server_name, clock=clock)
    administration = MediaAdministration(db=db, server_name=server_name, clock=clock)
    sections = [
        media.section(uploads, downloads, thumbnails, config),
        media_unauthenticated.section(downloads, thumbnails, config),
    ]
    if config.url_previews.enabled:
        http = await stack.enter_async_context(make_http_client(means.config.federation))
        sections.append(_previews(means, contents=contents, processes=processes, pages=HttpWebPages(http)))
    return Media(
        sections=sections,
        admin_sections=(admin_media.section(administration, server_name),),
        federation_sections=(served_media.section(downloads, thumbnails, server_name=server_name),),
        background=(BackgroundTask("media_retention", retention.run),),
    )


def _previews(means: Means, *, contents: Contents, processes: PictureProcesses, pages: WebPages) -> Section:
    config = means.config.media
    previews = UrlPreviews(
        db=means.db,
        contents=contents,
        processes=processes,
        pages=pages,
        config=config.url_previews,
        server_name=means.config.server_name,
        require_authentication=config.require_authentication,
        clock=means.clock,
    )
    return media_previews.section(previews)


def _rates(name: str, config: ByteRateConfig, file_bytes_max: int, buckets: ByteBuckets) -> ByteRates:
    """Rates under which a few files may always come at the same time."""
    return ByteRates(
        buckets=buckets,
        name=name,
        bytes_per_second=config.per_second_bytes,
        burst_bytes=config.burst_bytes,
        overflow_bytes=FILES_AT_ONCE * file_bytes_max,
    )
