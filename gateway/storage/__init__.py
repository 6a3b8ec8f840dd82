"""SQLAlchemy tables, one repository per noun, the writer and reader threads, migrations."""
