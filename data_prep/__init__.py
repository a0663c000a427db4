"""Jobs that make boxes from what lies outside: pairs into shards, texts into spaces, spaces into columns."""
