-- The content repository: files by their SHA-256, and the names under which they are known here and elsewhere.

CREATE TABLE media_contents (
    sha256 bytea PRIMARY KEY,
    size_bytes bigint NOT NULL,
    -- When its bytes were last brought, in milliseconds: a file that is just being named is not swept.
    touched_ts bigint NOT NULL,
    -- Its file is being removed: whoever brings the same bytes waits until the row is gone.
    removing boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE media_contents IS 'Files that are stored; the row is there before the file. Bound: the names in local_media, remote_media and media_thumbnails; swept ten minutes after the last of them is gone.';

CREATE TABLE local_media (
    media_id text PRIMARY KEY,
    user_id text NOT NULL,
    -- NULL until it is uploaded.
    sha256 bytea REFERENCES media_contents,
    size_bytes bigint NOT NULL DEFAULT 0,
    content_type text NOT NULL DEFAULT 'application/octet-stream',
    file_name text,
    created_ts bigint NOT NULL,
    -- Until when it may be uploaded, if it was created first.
    expires_ts bigint,
    last_access_ts bigint NOT NULL,
    -- Only those who show who they are may have it.
    authenticated boolean NOT NULL,
    -- An administrator has said that it is not to be quarantined with others of its user.
    protected boolean NOT NULL DEFAULT false,
    -- The picture of a page, stored for previews.
    is_preview boolean NOT NULL DEFAULT false
);
CREATE INDEX local_media_by_user ON local_media (user_id, created_ts, media_id);
CREATE INDEX local_media_by_content ON local_media (sha256);
CREATE INDEX local_media_by_access ON local_media (last_access_ts);
CREATE INDEX local_media_by_age ON local_media (created_ts);
CREATE INDEX local_media_pending ON local_media (expires_ts) WHERE sha256 IS NULL;
COMMENT ON TABLE local_media IS 'What users have uploaded, or are about to. Bound: quotas of users and retention (media in the configuration); uploads that never came are swept a day after they have expired.';

CREATE TABLE remote_media (
    server_name text NOT NULL,
    media_id text NOT NULL,
    sha256 bytea NOT NULL REFERENCES media_contents,
    size_bytes bigint NOT NULL,
    content_type text NOT NULL,
    file_name text,
    fetched_ts bigint NOT NULL,
    last_access_ts bigint NOT NULL,
    authenticated boolean NOT NULL,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX remote_media_by_content ON remote_media (sha256);
CREATE INDEX remote_media_by_access ON remote_media (last_access_ts);
COMMENT ON TABLE remote_media IS 'Media of other servers that is kept here. Bound: retention (media in the configuration).';

CREATE TABLE media_thumbnails (
    source_sha256 bytea NOT NULL REFERENCES media_contents ON DELETE CASCADE,
    width integer NOT NULL,
    height integer NOT NULL,
    method text NOT NULL,
    animated boolean NOT NULL,
    -- The source itself, where that is as small as was asked for.
    sha256 bytea NOT NULL REFERENCES media_contents,
    size_bytes bigint NOT NULL,
    content_type text NOT NULL,
    PRIMARY KEY (source_sha256, width, height, method, animated)
);
CREATE INDEX media_thumbnails_by_content ON media_thumbnails (sha256);
COMMENT ON TABLE media_thumbnails IS 'Thumbnails by the size that was asked for. Bound: 64 for each file; removed with it.';

CREATE TABLE media_quarantine (
    sha256 bytea PRIMARY KEY,
    quarantined_by text NOT NULL,
    quarantined_ts bigint NOT NULL
);
COMMENT ON TABLE media_quarantine IS 'Files that nobody is given, whatever they are called and whoever uploads them again. Bound: what administrators have quarantined.';

CREATE TABLE url_previews (
    url_sha256 bytea NOT NULL,
    language text NOT NULL,
    -- The JSON of the answer.
    preview text NOT NULL,
    fetched_ts bigint NOT NULL,
    PRIMARY KEY (url_sha256, language)
);
CREATE INDEX url_previews_by_age ON url_previews (fetched_ts);
COMMENT ON TABLE url_previews IS 'Previews of pages. Bound: what was asked for within their life (media.url_previews in the configuration); swept every ten minutes.';
