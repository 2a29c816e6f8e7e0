"""The server and its schema: embedded or any other, migrations, partitions, backup."""
