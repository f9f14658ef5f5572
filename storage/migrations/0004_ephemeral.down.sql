DROP TABLE presence_sources, presence, typing_rooms, typing, receipts;
