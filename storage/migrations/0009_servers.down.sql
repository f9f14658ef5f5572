DROP TABLE server_keys, destinations;
