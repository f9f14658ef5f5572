DROP TABLE key_backup_keys, key_backups;
