"""What an index holds, in the files other programs read: subtitles, tables, edit lists, chapters, cut clips, sheets."""
