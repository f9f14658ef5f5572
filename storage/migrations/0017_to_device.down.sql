DROP TABLE received_to_device, to_device_requests;
