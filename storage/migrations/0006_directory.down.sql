DROP TABLE published_rooms, room_aliases;
