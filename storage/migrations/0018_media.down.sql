DROP TABLE url_previews;
DROP TABLE media_quarantine;
DROP TABLE media_thumbnails;
DROP TABLE remote_media;
DROP TABLE local_media;
DROP TABLE media_contents;
