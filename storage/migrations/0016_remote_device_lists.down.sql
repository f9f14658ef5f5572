DROP TABLE device_list_lags, device_list_streams, device_changes;
DROP TABLE remote_cross_signing_keys, remote_devices, remote_device_lists;
