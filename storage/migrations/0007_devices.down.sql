DROP TABLE device_list_changes, to_device_messages;
