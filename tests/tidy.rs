//! The law of the house.
