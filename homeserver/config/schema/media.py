"""Files and previews of links."""

from dataclasses import dataclass
from typing import Literal

from homeserver.config.schema.limits import ByteRateConfig
from homeserver.config.values import Count, HttpUrl, Secret


@dataclass(frozen=True, slots=True)
class UrlPreviewsConfig:
    """Previews of the pages that messages link to. The server fetches them, so their hosts learn its address."""

    enabled: bool = False
    """Whether there are previews."""
    allowed_urls: tuple[str, ...] = ()
    """The only pages to preview, `host/path` with `*` and `?` for any characters, for example `[example.org/*]`. Empty:
    all."""
    denied_urls: tuple[str, ...] = ()
    """Pages not to preview, written as `allowed_urls`."""
    page_bytes_max: Count = 10 * 1024 * 1024
    """The largest page or picture that is fetched, in bytes."""
    languages: tuple[str, ...] = ("en",)
    """The languages that pages are asked for, if the client wishes none."""
    kept_ms: Count = 3_600_000
    """How long a preview is believed."""


@dataclass(frozen=True, slots=True)
class S3Config:
    """A bucket of an S3-compatible store, for `storage: s3`. Needs `pip install 'heliograph[s3]'`."""

    bucket: str | None = None
    """Its name. It must be there, and be used by nothing else below `prefix`."""
    prefix: str | None = None
    """What the names of all objects begin with, for example `matrix/`; `null`: nothing."""
    endpoint_url: HttpUrl | None = None
    """Where the store is; `null`: Amazon's, in `region`. It may be in a private network."""
    region: str = "us-east-1"
    """The region of the bucket; many other stores do not mind."""
    path_style: bool = False
    """Whether the bucket's name stands in the path of URLs, as many other stores need, or else in the host's name."""
    access_key_id: str | None = None
    """The name of the key; `null`: as Amazon's own programs find it, in the environment or from the machine's role."""
    secret_access_key: Secret | None = None
    """The key."""
    session_token: Secret | None = None
    """What goes with a key that holds for a time only."""
    redirect_downloads: bool = False
    """Whether clients and other servers are sent to the bucket, by a URL that holds for five minutes, rather than the
    server passing everything through. Those who ask by the old endpoints are if they say `allow_redirect=true`. For
    browsers the bucket needs a CORS rule."""
    public_endpoint_url: HttpUrl | None = None
    """Where clients reach the store, if not at `endpoint_url`."""


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """Files: uploads, downloads, thumbnails."""

    storage: Literal["files", "s3"] = "files"
    """Where they are kept: `files` in `data_dir/media`, `s3` in a bucket; then only what is on its way lies in that
    folder. `homeserver media move` brings them from one to the other."""
    s3: S3Config = S3Config()
    upload_bytes_max: Count = 50 * 1024 * 1024
    """The largest file that is taken, in bytes. A reverse proxy in front must let it through."""
    user_bytes_max: Count | None = None
    """How many bytes each user may have here in all; `null`: any number."""
    user_files_max: Count | None = None
    """How many files each user may have here; `null`: any number."""
    pending_per_user_max: Count = 5
    """How many names each user may have for uploads to come."""
    pending_lifetime_ms: Count = 86_400_000
    """How long such a name waits for its upload."""
    uploads: ByteRateConfig = ByteRateConfig(per_second_bytes=1024 * 1024, burst_bytes=1024 * 1024 * 1024)
    """How much each user may upload. Written `{per_second_bytes: 100K, burst_bytes: 500M}`."""
    remote_bytes_max: Count = 50 * 1024 * 1024
    """The largest file that is fetched from another server, in bytes."""
    remote_fetches: ByteRateConfig = ByteRateConfig(per_second_bytes=1024 * 1024, burst_bytes=1024 * 1024 * 1024)
    """How much each user, or each address without one, may have fetched from other servers."""
    require_authentication: bool = True
    """Whether media that are uploaded or fetched from now on are given only to those who show who they are. What is
    here already stays as it is."""
    picture_pixels_max: Count = 32_000_000
    """The largest picture of which thumbnails are made, in pixels."""
    local_age_ms: Count | None = None
    """How long uploads are kept; `null`: for ever. Protected ones always are."""
    local_unused_ms: Count | None = None
    """How long uploads that nobody asks for are kept, pictures of users excepted; `null`: for ever."""
    local_total_bytes_max: Count | None = None
    """The space of all uploads; those that nobody has asked for longest go first. `null`: any."""
    redacted_kept_ms: Count | None = None
    """How long files are kept after the last event that shows them was redacted, if an event of their owner did, and no
    profile and no account data does; `null`: as long as others. What encrypted events show is not known, so files that
    their owner has shown in both are lost there."""
    remote_age_ms: Count | None = None
    """How long files of other servers are kept, from where they can be fetched again; `null`: for ever."""
    remote_unused_ms: Count | None = 7_776_000_000
    """How long files of other servers that nobody asks for are kept; `null`: for ever."""
    remote_total_bytes_max: Count | None = None
    """The space of all files of other servers; `null`: any."""
    url_previews: UrlPreviewsConfig = UrlPreviewsConfig()
